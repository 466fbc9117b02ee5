//! x
mod attribute;
mod diagnostic;
mod duration;
mod expand;
mod item;
mod options;
mod scope;
mod signature;
mod template;

use proc_macro::TokenStream;

/// x
#[proc_macro_attribute]
pub fn distributed_lock(arguments: TokenStream, item: TokenStream) -> TokenStream {
    attribute::expand(arguments.into(), &item.into()).into()
}
