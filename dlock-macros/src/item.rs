//! The item that the attribute is on.

use proc_macro2::{Span, TokenStream};
use syn::parse::{Parse, ParseStream};
use syn::{AttrStyle, Attribute, Signature, Token, Visibility, braced, token};

/// The annotated item.
pub(crate) enum Item {
    Function(FunctionItem),
    /// A trait method without a body.
    Bodiless(Signature),
    /// Any other item: its description and the span of its keyword.
    Other(&'static str, Span),
}

/// A function whose body is not parsed: its tokens stay as the user wrote them.
pub(crate) struct FunctionItem {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    pub(crate) body: Body,
}

/// The braces of a body and the tokens between them.
pub(crate) struct Body {
    pub(crate) brace: token::Brace,
    pub(crate) tokens: TokenStream,
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut attributes = input.call(Attribute::parse_outer)?;
        let visibility: Visibility = input.parse()?;
        if let Some((what, span)) = other(input) {
            let _: TokenStream = input.parse()?;
            return Ok(Self::Other(what, span));
        }
        let signature: Signature = input.parse()?;
        if input.peek(Token![;]) {
            let _: Token![;] = input.parse()?;
            return Ok(Self::Bodiless(signature));
        }
        let content;
        let brace = braced!(content in input);
        // Inner attributes of the body apply to the function, and are not allowed inside a `let`.
        attributes.extend(content.call(Attribute::parse_inner)?.into_iter().map(
            |mut attribute| {
                attribute.style = AttrStyle::Outer;
                attribute
            },
        ));
        let body = Body { brace, tokens: content.parse()? };
        Ok(Self::Function(FunctionItem { attributes, visibility, signature, body }))
    }
}

/// Describes an item that is not a function, based on its first keyword.
fn other(input: ParseStream<'_>) -> Option<(&'static str, Span)> {
    let what = if input.peek(Token![impl])
        || (input.peek(Token![unsafe]) && input.peek2(Token![impl]))
    {
        "an `impl` block"
    } else if input.peek(Token![trait])
        || (input.peek(Token![unsafe]) && input.peek2(Token![trait]))
    {
        "a trait"
    } else if input.peek(Token![struct]) {
        "a struct"
    } else if input.peek(Token![enum]) {
        "an enum"
    } else if input.peek(Token![mod]) {
        "a module"
    } else if input.peek(Token![type]) {
        "a type"
    } else if input.peek(Token![use]) {
        "an import"
    } else if input.peek(Token![static]) {
        "a static"
    } else if input.peek(Token![const])
        && !(input.peek2(Token![fn]) || input.peek2(Token![async]) || input.peek2(Token![unsafe]))
    {
        "a constant"
    } else {
        return None;
    };
    Some((what, input.span()))
}
