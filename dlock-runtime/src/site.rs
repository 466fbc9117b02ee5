//! Lock sites: the annotated functions of a binary, known without calling them.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::backend::Sharing;
use crate::options::{LockOptions, OnLost, Wait};

/// One annotated function: where it is, which keys it locks, and with what options.
///
/// The attribute registers a site for every function it is written on, whether or not that is ever
/// called; [`Registry::sites`](crate::Registry::sites) lists them, and
/// [`RegistryBuilder::install`](crate::RegistryBuilder::install) verifies them.
#[derive(Debug)]
pub struct Site {
    module_path: &'static str,
    file: &'static str,
    line: u32,
    function: &'static str,
    label: &'static str,
    keys: &'static [&'static str],
    in_transaction: bool,
    pub(crate) options: LockOptions,
}

inventory::collect!(&'static Site);

impl Site {
    /// The module the function is in.
    #[must_use]
    pub const fn module_path(&self) -> &'static str {
        self.module_path
    }

    /// The source file, as the compiler names it.
    #[must_use]
    pub const fn file(&self) -> &'static str {
        self.file
    }

    /// The line of the attribute.
    #[must_use]
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// The function's name.
    #[must_use]
    pub const fn function(&self) -> &'static str {
        self.function
    }

    /// The key templates as written; an expression stands in braces.
    #[must_use]
    pub const fn keys(&self) -> &'static [&'static str] {
        self.keys
    }

    /// The backend's name, if one is written; otherwise the registry's default is meant.
    #[must_use]
    pub const fn backend_name(&self) -> Option<&'static str> {
        self.options.backend
    }

    /// Is it a row lock in the caller's transaction, which needs no backend?
    #[must_use]
    pub const fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// The function with its module: what operators see of its holds.
    pub(crate) const fn label(&self) -> &'static str {
        self.label
    }

    /// The first template: the low-cardinality name of this lock in traces and metrics.
    pub(crate) fn template(&self) -> &'static str {
        self.keys.first().copied().unwrap_or("")
    }
}

/// Construction, for the attribute's expansion only.
#[doc(hidden)]
impl Site {
    #[must_use]
    pub const fn new(
        module_path: &'static str,
        file: &'static str,
        line: u32,
        function: &'static str,
        label: &'static str,
        keys: &'static [&'static str],
    ) -> Self {
        Self {
            module_path,
            file,
            line,
            function,
            label,
            keys,
            in_transaction: false,
            options: LockOptions::DEFAULT,
        }
    }

    #[must_use]
    pub const fn backend(mut self, name: &'static str) -> Self {
        self.options.backend = Some(name);
        self
    }

    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = Some(ttl);
        self
    }

    #[must_use]
    pub const fn wait(mut self, limit: Duration) -> Self {
        self.options.wait = Some(Wait::UpTo(limit));
        self
    }

    #[must_use]
    pub const fn wait_forever(mut self) -> Self {
        self.options.wait = Some(Wait::Forever);
        self
    }

    #[must_use]
    pub const fn renew(mut self, renew: bool) -> Self {
        self.options.renew = renew;
        self
    }

    #[must_use]
    pub const fn max_hold(mut self, limit: Duration) -> Self {
        self.options.max_hold = Some(limit);
        self
    }

    #[must_use]
    pub const fn min_hold(mut self, least: Duration) -> Self {
        self.options.min_hold = Some(least);
        self
    }

    #[must_use]
    pub const fn skip_if_busy(mut self) -> Self {
        self.options.skip_if_busy = true;
        self
    }

    #[must_use]
    pub const fn on_lost(mut self, policy: OnLost) -> Self {
        self.options.on_lost = policy;
        self
    }

    #[must_use]
    pub const fn shared(mut self) -> Self {
        self.options.sharing = Sharing::Shared;
        self
    }

    /// # Panics
    /// Without a permit; the attribute refuses that.
    #[must_use]
    pub const fn permits(mut self, permits: u32) -> Self {
        let permits = NonZeroU32::new(permits).expect("at least one");
        self.options.sharing = Sharing::of_permits(permits);
        self
    }

    #[must_use]
    pub const fn fair(mut self, fair: bool) -> Self {
        self.options.fair = fair;
        self
    }

    #[must_use]
    pub const fn in_transaction(mut self) -> Self {
        self.in_transaction = true;
        self
    }

    #[must_use]
    pub const fn reentrant(mut self, reentrant: bool) -> Self {
        self.options.reentrant = reentrant;
        self
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { module_path, file, line, function, keys, .. } = self;
        write!(f, "{module_path}::{function} ({file}:{line}, key \"{}\")", keys.join("\", \""))
    }
}
