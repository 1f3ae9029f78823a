//! Reports calls of filters, tests and methods that would fail for every item.

use std::ops::Range;

use minijinja::machinery::ast::{self, CallArg, Expr};

use crate::pipeline::operators::Comparison;
use crate::pipeline::signatures::{self, METHODS, TESTS};
use crate::pipeline::values::Kind;

use super::rewriter::{Rewriter, range, source_range};

/// What is called, and its arguments. `keywords` is `None` if the keyword arguments are not known.
struct Callee<'c> {
    kind: &'static str,
    name: &'c str,
    min_args: usize,
    max_args: usize,
    keywords: Option<&'c [&'c str]>,
}

impl<'s> Rewriter<'s, '_> {
    /// Checks a call of a filter.
    pub(super) fn check_filter(&mut self, filter: &ast::Spanned<ast::Filter<'s>>) {
        let start = range(filter.span()).start;
        let name = start..start + filter.name.len();
        match signatures::filter(filter.name) {
            None => self.error(format!("unknown filter `{}`", filter.name), name),
            Some(signature) => {
                let callee = Callee {
                    kind: "filter",
                    name: filter.name,
                    min_args: signature.min_args,
                    max_args: signature.max_args,
                    keywords: Some(signature.keywords),
                };
                self.check_args(&callee, &filter.args, name);
            }
        }
        self.check_named_callee(filter.name, &filter.args);
        self.check_number_args(filter);
    }

    /// Checks the filter or test that `map`, `select` and similar filters call by name.
    fn check_named_callee(&mut self, filter: &str, args: &[CallArg<'s>]) {
        let (position, kind) = match filter {
            "map" => (0, "filter"),
            "select" | "reject" => (0, "test"),
            "selectattr" | "rejectattr" => (1, "test"),
            _ => return,
        };
        let Some(CallArg::Pos(Expr::Const(constant))) = args.get(position) else { return };
        let Some(name) = constant.value.as_str() else {
            return self.error(format!("`{filter}` takes the name of a {kind} here"), range(constant.span()));
        };
        let given = args[position + 1..].iter().filter(|arg| matches!(arg, CallArg::Pos(_))).count();
        let expected = match kind {
            "filter" => signatures::filter(name).map(|signature| (signature.min_args, signature.max_args)),
            _ => TESTS.iter().find(|(test, _)| *test == name).map(|(_, args)| (*args, *args)),
        };
        match expected {
            None => self.error(format!("unknown {kind} `{name}`"), range(constant.span())),
            Some((min, max)) if !args.iter().any(is_splat) && !(min..=max).contains(&given) => {
                self.error(
                    format!("the {kind} `{name}` {}", describe_arity(min, max)),
                    range(constant.span()),
                );
            }
            Some(_) => {}
        }
    }

    /// Reports a value or an argument that must be a number and is not a number for any item.
    fn check_number_args(&mut self, filter: &ast::Filter<'s>) {
        let name = filter.name;
        let value = filter.expr.as_ref().filter(|_| matches!(name, "abs" | "round"));
        let first = match filter.args.first() {
            Some(CallArg::Pos(first)) if matches!(name, "batch" | "indent" | "round" | "slice") => {
                Some(first)
            }
            _ => None,
        };
        for (what, expr) in [("value of the filter", value), ("first argument of the filter", first)] {
            let Some(expr) = expr else { continue };
            match self.kind(expr) {
                None | Some(Kind::Number | Kind::Bool | Kind::None) => {}
                Some(kind) => {
                    let help = match kind {
                        Kind::Text => "; make the text a number with `| float` or `| int`",
                        _ => "",
                    };
                    let message =
                        format!("the {what} `{name}` must be a number, not {}{help}", kind.description());
                    self.error(message, source_range(expr));
                }
            }
        }
    }

    /// Checks a test. `source` is its position, and `name_range` that of its name.
    pub(super) fn check_test(
        &mut self,
        test: &ast::Test<'s>,
        source: Range<usize>,
        name_range: Range<usize>,
    ) {
        match TESTS.iter().find(|(name, _)| *name == test.name) {
            None => self.error(format!("unknown test `{}`", test.name), name_range),
            Some((_, args)) => {
                let callee = Callee {
                    kind: "test",
                    name: test.name,
                    min_args: *args,
                    max_args: *args,
                    keywords: Some(&[]),
                };
                self.check_args(&callee, &test.args, name_range);
            }
        }
        if let (Some(comparison), [CallArg::Pos(right)]) = (Comparison::of_test(test.name), &test.args[..]) {
            self.check_comparison(comparison, &test.expr, right, source);
        }
    }

    /// Checks a call of a method. A local value, which the template defines itself, may have any methods.
    pub(super) fn check_method(
        &mut self,
        name: &str,
        args: &[CallArg<'s>],
        name_range: Range<usize>,
        is_local: bool,
    ) {
        match METHODS.iter().find(|(method, ..)| *method == name) {
            None if is_local => {}
            None => self.error(format!("unknown method `{name}`; filters follow `|`"), name_range),
            Some((_, min_args, max_args)) => {
                let callee =
                    Callee { kind: "method", name, min_args: *min_args, max_args: *max_args, keywords: None };
                self.check_args(&callee, args, name_range);
            }
        }
    }

    /// Reports a wrong number of arguments, and unknown keyword arguments.
    fn check_args(&mut self, callee: &Callee<'_>, args: &[CallArg<'s>], source_range: Range<usize>) {
        let Callee { kind, name, min_args, max_args, keywords } = *callee;
        if args.iter().any(is_splat) {
            return;
        }
        let given = args.iter().filter(|arg| matches!(arg, CallArg::Pos(_))).count();
        if !(min_args..=max_args).contains(&given) {
            self.error(
                format!("the {kind} `{name}` {}", describe_arity(min_args, max_args)),
                source_range.clone(),
            );
        }
        if max_args == usize::MAX && name != "map" {
            return;
        }
        for arg in args {
            if let (CallArg::Kwarg(key, _), Some(known)) = (arg, keywords)
                && !known.contains(key)
                && !(name == "map" && given > 0)
            {
                self.error(format!("the {kind} `{name}` has no argument `{key}`"), source_range.clone());
            }
        }
    }
}

pub(super) fn is_splat(arg: &CallArg<'_>) -> bool {
    matches!(arg, CallArg::PosSplat(_) | CallArg::KwargSplat(_))
}

fn describe_arity(min: usize, max: usize) -> String {
    match (min, max) {
        (0, 0) => "takes no argument".to_owned(),
        (1, 1) => "takes one argument".to_owned(),
        (min, usize::MAX) => format!("takes at least {min} arguments"),
        (min, max) if min == max => format!("takes {min} arguments"),
        (min, max) => format!("takes {min} to {max} arguments"),
    }
}
