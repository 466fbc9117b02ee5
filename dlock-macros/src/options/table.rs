//! Every option: its name, how it is parsed, and which field of the runtime's options it sets.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote_spanned};
use syn::spanned::Spanned;

use super::arguments::Argument;
use super::{Handover, Keys, Mode, OnBusy, OnLost, Options, Wait, key, keys, value};
use crate::diagnostic::Errors;

/// One option of the attribute.
pub(crate) struct OptionRow {
    pub(crate) name: &'static str,
    /// A value, for error messages.
    pub(crate) example: &'static str,
    /// The names that other libraries use for it.
    pub(crate) foreign: &'static [&'static str],
    /// Why it makes no sense for a row lock in the caller's transaction, if so.
    pub(crate) not_in_transaction: Option<&'static str>,
    pub(super) set: fn(&mut Options, &Argument, &mut Errors) -> syn::Result<()>,
    /// The field of the runtime's options that it sets, and the value if the option is present.
    pub(crate) field: Option<(&'static str, Field)>,
}

type Field = fn(&Options, &TokenStream) -> Option<TokenStream>;

const PLAIN: OptionRow = OptionRow {
    name: "",
    example: "",
    foreign: &[],
    not_in_transaction: None,
    set: |_, _, _| Ok(()),
    field: None,
};

/// In the order of the documentation.
pub(crate) const OPTIONS: [OptionRow; 21] = [
    OptionRow {
        name: "key",
        example: "\"product:<id>\"",
        foreign: &["name"],
        set: |options, argument, errors| {
            options.keys = Some(Keys::One(key(&argument.value, errors)?));
            Ok(())
        },
        ..PLAIN
    },
    OptionRow {
        name: "keys",
        example: "[\"account:<from>\", \"account:<to>\"]",
        set: |options, argument, errors| {
            options.keys = keys(&argument.value, errors)?;
            Ok(())
        },
        ..PLAIN
    },
    OptionRow {
        name: "ttl",
        example: "\"5s\"",
        foreign: &["lease", "lease_time", "expire", "expiry"],
        not_in_transaction: Some(
            "a row lock has no lease: it lives exactly as long as the transaction",
        ),
        set: |options, argument, _| {
            options.ttl = Some(value::ttl(argument)?);
            Ok(())
        },
        field: Some(("ttl", |options, runtime| Some(some(&duration(options.ttl?, runtime))))),
    },
    OptionRow {
        name: "wait",
        example: "\"2s\"",
        foreign: &["timeout", "wait_time"],
        set: |options, argument, _| {
            options.wait = Some(value::wait(argument)?);
            Ok(())
        },
        field: Some(("wait", |options, runtime| Some(some(&wait(options.wait()?, runtime))))),
        ..PLAIN
    },
    OptionRow {
        name: "backend",
        example: "\"redis\"",
        foreign: &["store"],
        not_in_transaction: Some("a row lock lives in the transaction's own database"),
        set: |options, argument, _| {
            options.backend = Some(value::backend(argument)?);
            Ok(())
        },
        field: Some(("backend", |options, _| Some(some(options.backend.as_ref()?)))),
    },
    OptionRow {
        name: "mode",
        example: "\"shared\"",
        foreign: &["lock_type", "shared"],
        set: |options, argument, _| {
            let words = [("exclusive", Mode::Exclusive), ("shared", Mode::Shared)];
            options.mode = Some(value::word(argument, &words)?);
            Ok(())
        },
        field: Some(("mode", mode)),
        ..PLAIN
    },
    OptionRow {
        // Sets the runtime's field `mode`, together with the option `mode`.
        name: "permits",
        example: "5",
        foreign: &["count", "limit"],
        not_in_transaction: Some(
            "a database locks a row for one writer or for any number of readers, and counts none; `mode = \"shared\"` is for readers",
        ),
        set: |options, argument, _| {
            options.permits = Some(value::permits(argument)?);
            Ok(())
        },
        ..PLAIN
    },
    OptionRow {
        name: "fair",
        example: "true",
        foreign: &["fifo"],
        not_in_transaction: Some("the database keeps a queue of its own for each row"),
        set: |options, argument, _| {
            options.fair = Some(value::boolean(argument)?);
            Ok(())
        },
        field: Some(("fair", |options, _| Some(options.fair?.to_token_stream()))),
    },
    OptionRow {
        name: "handover",
        example: "\"64 in 10ms\"",
        not_in_transaction: Some("the database decides who has the row next"),
        set: |options, argument, _| {
            options.handover = Some(value::handover(argument)?);
            Ok(())
        },
        field: Some(("handover", |options, runtime| {
            Some(some(&handover(options.handover?, runtime)))
        })),
        ..PLAIN
    },
    OptionRow {
        name: "renew",
        example: "true",
        foreign: &["watchdog"],
        not_in_transaction: Some(
            "a row lock has no lease to renew: it lives exactly as long as the transaction",
        ),
        set: |options, argument, _| {
            options.renew = Some(value::boolean(argument)?);
            Ok(())
        },
        field: Some(("renew", |options, _| Some(options.renew?.to_token_stream()))),
    },
    OptionRow {
        name: "max_hold",
        example: "\"1m\"",
        foreign: &["lock_at_most_for"],
        not_in_transaction: Some(
            "a row lock is held until the caller ends the transaction, which this function cannot do for it",
        ),
        set: |options, argument, _| {
            options.max_hold = Some(value::hold(argument)?);
            Ok(())
        },
        field: Some(("max_hold", |options, runtime| {
            Some(some(&duration(options.max_hold?, runtime)))
        })),
    },
    OptionRow {
        name: "min_hold",
        example: "\"30s\"",
        foreign: &["lock_at_least_for"],
        not_in_transaction: Some(
            "a row lock ends with the transaction and cannot be kept any longer",
        ),
        set: |options, argument, _| {
            options.min_hold = Some(value::hold(argument)?);
            Ok(())
        },
        field: Some(("min_hold", |options, runtime| {
            Some(some(&duration(options.min_hold?, runtime)))
        })),
    },
    OptionRow {
        name: "grace",
        example: "\"2s\"",
        foreign: &["lock_delay"],
        not_in_transaction: Some(
            "a row lock cannot outlive its transaction, and neither can the writes in it",
        ),
        set: |options, argument, _| {
            options.grace = Some(value::hold(argument)?);
            Ok(())
        },
        field: Some(("grace", |options, runtime| Some(some(&duration(options.grace?, runtime))))),
    },
    OptionRow {
        name: "on_busy",
        example: "\"skip\"",
        set: |options, argument, _| {
            let words = [("error", OnBusy::Error), ("skip", OnBusy::Skip)];
            options.on_busy = Some((value::word(argument, &words)?, argument.value.span()));
            Ok(())
        },
        field: Some(("skip_if_busy", |options, _| {
            options.skips_if_busy().then(|| true.to_token_stream())
        })),
        ..PLAIN
    },
    OptionRow {
        name: "on_lost",
        example: "\"cancel\"",
        not_in_transaction: Some(
            "a row lock cannot be lost while its transaction lives; if that is gone, so are its writes",
        ),
        set: |options, argument, _| {
            let words =
                [("cancel", OnLost::Cancel), ("finish", OnLost::Finish), ("keep", OnLost::Keep)];
            options.on_lost = Some(value::word(argument, &words)?);
            Ok(())
        },
        field: Some(("on_lost", |options, runtime| Some(on_lost(options.on_lost?, runtime)))),
        ..PLAIN
    },
    OptionRow {
        name: "reentrant",
        example: "true",
        not_in_transaction: Some("a row lock is reentrant by itself, within its transaction"),
        set: |options, argument, _| {
            options.reentrant = Some(value::boolean(argument)?);
            Ok(())
        },
        field: Some(("reentrant", |options, _| Some(options.reentrant?.to_token_stream()))),
        ..PLAIN
    },
    OptionRow {
        name: "guard",
        example: "lock",
        foreign: &["token"],
        set: |options, argument, _| {
            options.guard = Some(value::name(argument)?);
            Ok(())
        },
        ..PLAIN
    },
    OptionRow {
        name: "transaction",
        example: "tx",
        foreign: &["tx"],
        set: |options, argument, _| {
            options.transaction = Some(value::transaction(argument)?);
            Ok(())
        },
        ..PLAIN
    },
    OptionRow {
        name: "unlock_before_commit",
        example: "true",
        not_in_transaction: Some("a row lock ends with the transaction, never before its commit"),
        set: |options, argument, _| {
            options.unlock_before_commit = Some((value::boolean(argument)?, argument.name.span()));
            Ok(())
        },
        ..PLAIN
    },
    OptionRow {
        name: "map_err",
        example: "path::to::function",
        set: |options, argument, _| {
            options.map_err = Some(value::path(argument, "`map_err = LockFailed::from`")?);
            Ok(())
        },
        ..PLAIN
    },
    OptionRow {
        name: "crate",
        example: "::dlock_runtime",
        set: |options, argument, _| {
            options.krate = Some(value::path(argument, "`crate = ::my_name_for_it`")?);
            Ok(())
        },
        ..PLAIN
    },
];

/// The option with this name.
pub(super) fn find(name: &str) -> Option<&'static OptionRow> {
    const TABLE: &[OptionRow] = &OPTIONS;
    TABLE.iter().find(|option| option.name == name)
}

/// The names of all options.
pub(super) fn names() -> Vec<&'static str> {
    OPTIONS.iter().map(|option| option.name).collect()
}

fn mixed() -> proc_macro2::Span {
    proc_macro2::Span::mixed_site()
}

fn some(value: &impl ToTokens) -> TokenStream {
    quote_spanned!(mixed()=> ::core::option::Option::Some(#value))
}

fn duration(duration: Duration, runtime: &TokenStream) -> TokenStream {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    quote_spanned!(mixed()=> #runtime::Duration::new(#seconds, #nanoseconds))
}

fn handover(Handover { passes, within }: Handover, runtime: &TokenStream) -> TokenStream {
    if passes == 0 {
        return quote_spanned!(mixed()=> #runtime::Handover::OFF);
    }
    let within = duration(within, runtime);
    quote_spanned!(mixed()=> #runtime::Handover::up_to(#passes, #within))
}

fn wait(wait: Wait, runtime: &TokenStream) -> TokenStream {
    match wait {
        Wait::UpTo(limit) => {
            let limit = duration(limit, runtime);
            quote_spanned!(mixed()=> #runtime::Wait::UpTo(#limit))
        }
        Wait::Forever => quote_spanned!(mixed()=> #runtime::Wait::Forever),
    }
}

fn mode(options: &Options, runtime: &TokenStream) -> Option<TokenStream> {
    if let Some(permits) = options.permits {
        let permits = permits.get();
        return Some(quote_spanned! {mixed()=>
            #runtime::Mode::permits(#runtime::NonZeroU32::new(#permits).unwrap())
        });
    }
    match options.mode? {
        Mode::Exclusive => None,
        Mode::Shared => Some(quote_spanned!(mixed()=> #runtime::Mode::Shared)),
    }
}

fn on_lost(policy: OnLost, runtime: &TokenStream) -> TokenStream {
    match policy {
        OnLost::Cancel => quote_spanned!(mixed()=> #runtime::OnLost::Cancel),
        OnLost::Finish => quote_spanned!(mixed()=> #runtime::OnLost::Finish),
        OnLost::Keep => quote_spanned!(mixed()=> #runtime::OnLost::Keep),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_option_in_this_order() {
        let readme = include_str!("../../../README.md");
        let rows = readme.lines().skip_while(|line| *line != "## Options").skip(1);
        let rows = rows.take_while(|line| !line.starts_with("## "));
        let listed: Vec<_> =
            rows.filter_map(|line| line.strip_prefix("| `")?.split([' ', '`']).next()).collect();
        assert_eq!(listed, names());
    }
}
