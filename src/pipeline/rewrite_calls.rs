//! Writes out the calls of filters, tests, methods and functions, and finds those that would fail for every item.

use std::ops::Range;

use minijinja::machinery::ast::{self, CallArg, CallType, Expr};

use super::operators::Comparison;
use super::rewrite::{Rewriter, place, range};
use super::signatures::{self, METHODS, TESTS};
use super::values::Kind;

/// What is called, how many arguments it takes, and which it knows by name if that is known.
struct Callee<'c> {
    kind: &'static str,
    name: &'c str,
    least: usize,
    most: usize,
    named: Option<&'c [&'c str]>,
}

impl<'s> Rewriter<'s, '_> {
    /// Writes a filter and what it is applied to, or a chain of filters without that.
    pub(super) fn filters(&mut self, expr: &Expr<'s>) {
        let Expr::Filter(filter) = expr else { return self.strict(expr) };
        let start = range(filter.span()).start;
        let name = start..start + filter.name.len();
        match signatures::signature(filter.name) {
            None => self.flaw(format!("unknown filter `{}`", filter.name), name),
            Some(signature) => {
                let (least, most) = (signature.least, signature.most);
                let named = Some(signature.named);
                let callee = Callee { kind: "filter", name: filter.name, least, most, named };
                self.count_args(&callee, &filter.args, name);
            }
        }
        self.named_in(filter.name, &filter.args);
        self.numbers_in(filter);
        if let Some(inner) = &filter.expr {
            match filter.name {
                "default" | "d" => self.lenient(inner),
                _ => self.strict(inner),
            }
            self.put("|");
        }
        let source = place(expr);
        self.from(source, |this| {
            this.put(filter.name);
            this.args(&filter.args, Self::strict);
        });
    }

    /// Finds unknown filters and tests that `map`, `select` and their like call by name.
    pub(super) fn named_in(&mut self, filter: &str, args: &[CallArg<'s>]) {
        let (at, kind) = match filter {
            "map" => (0, "filter"),
            "select" | "reject" => (0, "test"),
            "selectattr" | "rejectattr" => (1, "test"),
            _ => return,
        };
        let Some(CallArg::Pos(Expr::Const(constant))) = args.get(at) else { return };
        let Some(name) = constant.value.as_str() else {
            return self.flaw(format!("`{filter}` takes the name of a {kind} here"), range(constant.span()));
        };
        let given = args[at + 1..].iter().filter(|arg| matches!(arg, CallArg::Pos(_))).count();
        let expected = match kind {
            "filter" => signatures::signature(name).map(|signature| (signature.least, signature.most)),
            _ => TESTS.iter().find(|(test, _)| *test == name).map(|(_, args)| (*args, *args)),
        };
        match expected {
            None => self.flaw(format!("unknown {kind} `{name}`"), range(constant.span())),
            Some((least, most)) if !args.iter().any(is_splat) && !(least..=most).contains(&given) => {
                self.flaw(format!("the {kind} `{name}` {}", takes(least, most)), range(constant.span()));
            }
            Some(_) => {}
        }
    }

    /// Finds a value or an argument that has to be a number and is none for any item.
    fn numbers_in(&mut self, filter: &ast::Filter<'s>) {
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
                None | Some(Kind::Number | Kind::Truth | Kind::None) => {}
                Some(kind) => {
                    let advice = match kind {
                        Kind::Text => "; make the text a number with `| float` or `| int`",
                        _ => "",
                    };
                    let message =
                        format!("the {what} `{name}` must be a number, not {}{advice}", kind.named());
                    self.flaw(message, place(expr));
                }
            }
        }
    }

    fn count_args(&mut self, callee: &Callee<'_>, args: &[CallArg<'s>], place: Range<usize>) {
        let Callee { kind, name, least, most, named } = *callee;
        if args.iter().any(is_splat) {
            return;
        }
        let given = args.iter().filter(|arg| matches!(arg, CallArg::Pos(_))).count();
        if !(least..=most).contains(&given) {
            self.flaw(format!("the {kind} `{name}` {}", takes(least, most)), place.clone());
        }
        if most == usize::MAX && name != "map" {
            return;
        }
        for arg in args {
            if let (CallArg::Kwarg(key, _), Some(known)) = (arg, named)
                && !known.contains(key)
                && !(name == "map" && given > 0)
            {
                self.flaw(format!("the {kind} `{name}` knows no argument `{key}`"), place.clone());
            }
        }
    }

    pub(super) fn test(&mut self, expr: &Expr<'s>) {
        let Expr::Test(test) = expr else { return };
        let start = range(expr.span()).start;
        let place_of_name = start..start + test.name.len();
        match TESTS.iter().find(|(name, _)| *name == test.name) {
            None => self.flaw(format!("unknown test `{}`", test.name), place_of_name),
            Some((_, args)) => {
                let callee =
                    Callee { kind: "test", name: test.name, least: *args, most: *args, named: Some(&[]) };
                self.count_args(&callee, &test.args, place_of_name);
            }
        }
        if let (Some(comparison), [CallArg::Pos(right)]) = (Comparison::of_test(test.name), &test.args[..]) {
            self.judge(comparison, &test.expr, right, place(&test.expr).start..range(expr.span()).end);
        }
        let source = place(&test.expr).start..range(expr.span()).end;
        self.from(source, |this| {
            this.put("(");
            match test.name {
                "defined" | "undefined" => this.lenient(&test.expr),
                _ => this.strict(&test.expr),
            }
            this.put(" is ");
            this.put(test.name);
            this.args(&test.args, Self::strict);
            this.put(")");
        });
    }

    pub(super) fn call(&mut self, call: &ast::Call<'s>) {
        match call.identify_call() {
            CallType::Function(name) => {
                let at = range(call.expr.span());
                self.mention(name, at.clone());
                if name == "item" || self.facts.is_step(name) && !self.is_bound(name) {
                    self.flaw(format!("`{name}` is no function"), at);
                }
                self.put(name);
            }
            CallType::Block(name) => {
                self.put("self.");
                self.put(name);
            }
            CallType::Method(object, name) => {
                let own = matches!(object, Expr::Var(var) if var.id == "loop" || self.is_bound(var.id));
                let end = place(&call.expr).end;
                let at = end - name.len().min(end)..end;
                match METHODS.iter().find(|(method, ..)| *method == name) {
                    None if own => {}
                    None => self.flaw(format!("unknown method `{name}`; filters stand after `|`"), at),
                    Some((_, least, most)) => {
                        let callee = Callee { kind: "method", name, least: *least, most: *most, named: None };
                        self.count_args(&callee, &call.args, at);
                    }
                }
                if let Expr::GetAttr(_) | Expr::GetItem(_) = object {
                    self.mention_path(object);
                }
                self.base(object, true);
                self.put(".");
                self.put(name);
            }
            CallType::Object(object) => self.base(object, true),
        }
        if call.args.is_empty() {
            return self.put("()");
        }
        let is_namespace = matches!(call.identify_call(), CallType::Function("namespace" | "dict"));
        self.args(&call.args, if is_namespace { Self::part } else { Self::kept });
    }

    pub(super) fn args(&mut self, args: &[CallArg<'s>], write: fn(&mut Self, &Expr<'s>)) {
        if args.is_empty() {
            return;
        }
        self.put("(");
        for (at, arg) in args.iter().enumerate() {
            if at > 0 {
                self.put(", ");
            }
            let value = match arg {
                CallArg::Pos(value) => value,
                CallArg::Kwarg(name, value) => {
                    self.put(name);
                    self.put("=");
                    value
                }
                CallArg::PosSplat(value) => {
                    self.put("*");
                    value
                }
                CallArg::KwargSplat(value) => {
                    self.put("**");
                    value
                }
            };
            match is_splat(arg) {
                true => self.strict(value),
                false => write(self, value),
            }
        }
        self.put(")");
    }
}

fn is_splat(arg: &CallArg<'_>) -> bool {
    matches!(arg, CallArg::PosSplat(_) | CallArg::KwargSplat(_))
}

fn takes(least: usize, most: usize) -> String {
    match (least, most) {
        (0, 0) => "takes no argument".to_owned(),
        (1, 1) => "takes one argument".to_owned(),
        (least, usize::MAX) => format!("takes at least {least} arguments"),
        (least, most) if least == most => format!("takes {least} arguments"),
        (least, most) => format!("takes {least} to {most} arguments"),
    }
}
