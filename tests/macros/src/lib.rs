//! `#[in_lab]`: a test whose body runs where stock Linux guests boot.
//!
//! The attribute only rewrites the function; everything it decides is in `reeve_tests::lab`. Use it
//! under its public name, `#[reeve_tests::in_lab]`.

use proc_macro::TokenStream;
use quote::quote;
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, ItemFn, Lit, Meta, Result, Token, parse_macro_input};

/// What the attribute's arguments say.
struct Arguments {
    limit_seconds: u64,
    needs_root: bool,
}

/// Marks a test whose body runs in the lab: in the outer guest, or directly on a machine whose own
/// `/dev/kvm` boots Linux.
///
/// Arguments, all optional:
/// - `timeout = "120s"` (or `"2m"`): the hard limit of the body, 90 s when not given.
/// - `root`: the body needs root; without it the outer guest is used even where `/dev/kvm` would do.
///
/// The function takes nothing and returns `()` or a `Result<(), E>`.
#[proc_macro_attribute]
pub fn in_lab(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments =
        parse_macro_input!(arguments with Punctuated::<Meta, Token![,]>::parse_terminated);
    let function = parse_macro_input!(item as ItemFn);
    parse(&arguments)
        .and_then(|arguments| expand(&arguments, &function))
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn parse(list: &Punctuated<Meta, Token![,]>) -> Result<Arguments> {
    let mut parsed = Arguments {
        limit_seconds: 90,
        needs_root: false,
    };
    for argument in list {
        match argument {
            Meta::Path(path) if path.is_ident("root") => parsed.needs_root = true,
            Meta::NameValue(pair) if pair.path.is_ident("timeout") => {
                parsed.limit_seconds = seconds(&pair.value)?;
            }
            other => {
                return Err(Error::new_spanned(other, "known: timeout = \"120s\", root"));
            }
        }
    }
    Ok(parsed)
}

/// Reads `"120s"` or `"2m"`.
fn seconds(value: &Expr) -> Result<u64> {
    let wrong = || Error::new_spanned(value, "a limit is written \"120s\" or \"2m\"");
    let Expr::Lit(ExprLit {
        lit: Lit::Str(text),
        ..
    }) = value
    else {
        return Err(wrong());
    };
    let text = text.value();
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let factor: u64 = match unit {
        "s" => 1,
        "m" => 60,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    match count.checked_mul(factor) {
        Some(seconds @ 1..=3600) => Ok(seconds),
        _ => Err(Error::new_spanned(
            value,
            "a limit is between 1 s and one hour",
        )),
    }
}

fn expand(arguments: &Arguments, function: &ItemFn) -> Result<proc_macro2::TokenStream> {
    let ItemFn {
        attrs,
        vis,
        sig,
        block,
    } = function;
    if !sig.inputs.is_empty() || sig.asyncness.is_some() || !sig.generics.params.is_empty() {
        return Err(Error::new_spanned(
            sig,
            "a lab test is a plain function without arguments",
        ));
    }
    for attribute in attrs {
        if attribute.path().is_ident("should_panic") || attribute.path().is_ident("test") {
            return Err(Error::new_spanned(
                attribute,
                "in_lab does not go with this attribute",
            ));
        }
    }
    let (name, output) = (&sig.ident, &sig.output);
    let Arguments {
        limit_seconds,
        needs_root,
    } = arguments;
    Ok(quote! {
        #[test]
        #(#attrs)*
        #vis fn #name() #output {
            fn body() #output #block
            ::reeve_tests::lab::dispatch(
                &::reeve_tests::lab::Test {
                    path: concat!(module_path!(), "::", stringify!(#name)),
                    limit: ::core::time::Duration::from_secs(#limit_seconds),
                    needs_root: #needs_root,
                },
                body,
            )
        }
    })
}
