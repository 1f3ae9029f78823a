//! Rewrites a template so that undefined fields and invalid comparisons are errors and its work is metered.
//!
//! The engine's operators compare values of different types, propagate undefined fields, and build texts of any
//! size. None of that can be configured. So a template is parsed into the engine's syntax tree and written out
//! again, with every operator as a call of a filter of [`operators`](super::operators): `a < b` becomes
//! `a|__lt(b)`, and a field that may be undefined becomes `item.x|__v`. The engine compiles the result like any
//! other template. Text between tags becomes `{{ ".." }}`, so that the meter counts it. A source map leads from
//! the rewritten text back to the source, for the positions of errors.
//!
//! The same pass collects the names that a template references, by the scoping rules of the language, and reports
//! what would fail for every item: unknown filters, tests and methods, wrong arguments, and comparisons of types
//! that cannot be compared.

use minijinja::machinery::ast::Stmt;
use minijinja::machinery::{parse, parse_expr};

use super::nesting;
use super::symbols::{CompileError, SymbolInfo};
use rewriter::Rewriter;

mod call_checks;
mod expressions;
mod references;
mod rewriter;
mod statements;

pub(super) use rewriter::{Rewritten, SourceMap};

/// Rewrites a template.
///
/// # Errors
/// All errors of the template.
pub(super) fn template(source: &str, symbols: &dyn SymbolInfo) -> Result<Rewritten, Vec<CompileError>> {
    nesting::check(source, false).map_err(|error| vec![error])?;
    let parsed = parse(source, "", Default::default()).map_err(|error| vec![CompileError::of(&error)])?;
    let mut rewriter = Rewriter::new(source, symbols);
    rewriter.statement(&parsed);
    Ok(Rewritten { constant_beginning: constant_beginning(&parsed), ..rewriter.finish()? })
}

/// Returns the text of a template before its first expression or statement.
fn constant_beginning(template: &Stmt<'_>) -> String {
    let mut text = String::new();
    if let Stmt::Template(template) = template {
        for statement in &template.children {
            // The engine has removed the comments, and the white space that the tags remove.
            let Stmt::EmitRaw(raw) = statement else { break };
            text.push_str(raw.raw);
        }
    }
    text
}

/// Rewrites a condition into a template that renders `1` if the condition is true.
///
/// # Errors
/// All errors of the condition.
pub(super) fn condition(source: &str, symbols: &dyn SymbolInfo) -> Result<Rewritten, Vec<CompileError>> {
    nesting::check(source, true).map_err(|error| vec![error])?;
    let parsed = parse_expr(source).map_err(|error| vec![CompileError::of(&error)])?;
    let mut rewriter = Rewriter::new(source, symbols);
    rewriter.out.push_str("{% if ");
    rewriter.strict(&parsed);
    rewriter.out.push_str(" %}1{% endif %}");
    rewriter.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::symbols::NoSymbols;

    #[test]
    fn operators_become_filters_and_other_code_stays_the_same() {
        let rewritten = |source| condition(source, &NoSymbols).unwrap().text;
        assert_eq!(rewritten("item.a < 3"), "{% if item.a|__v|__lt(3) %}1{% endif %}");
        assert_eq!(rewritten("not a == none"), "{% if (not (a is none)) %}1{% endif %}");
        assert_eq!(rewritten("a ~ 'b\"' ~ 1"), "{% if a|__cat(\"b\\\"\")|__cat(1) %}1{% endif %}");
        let text = template("a{% for x in item.l %}{{ x.y }}{% endfor %}\n", &NoSymbols).unwrap().text;
        assert_eq!(text, "{{ \"a\" }}{% for x in item.l|__v %}{{ \"\" }}{{ x.y|__v }}{% endfor %}");
    }

    #[test]
    fn references_in_raw_blocks_are_ignored() {
        let references =
            template("{% raw %}{{ a }}{% endraw %}{{ b['c'].d }}", &NoSymbols).unwrap().references;
        assert_eq!(references.variables.keys().collect::<Vec<_>>(), ["b"]);
    }
}
