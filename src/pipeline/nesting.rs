//! Limits the nesting of template source, so that parsing it or dropping its syntax tree cannot overflow the
//! stack.
//!
//! The syntax tree of a chain such as `a + b + c` is as deep as the chain is long. The engine's parser does not
//! limit that.

use minijinja::machinery::{Token, tokenize};

use super::symbols::CompileError;

/// Maximum nesting of operators and brackets.
const MAX_OPERATION_DEPTH: usize = 100;

/// Maximum nesting of statements; every `elif` of an `if` counts.
const MAX_STATEMENT_DEPTH: usize = 100;

/// Checks a template, or an expression.
pub(super) fn check(source: &str, is_expression: bool) -> Result<(), CompileError> {
    // For each open bracket, the operators in it since the last comma.
    let mut levels: Vec<usize> = vec![0];
    let mut operators: usize = 0;
    let mut blocks: Vec<usize> = Vec::new();
    let mut is_statement_start = false;
    for token in tokenize(source, is_expression, Default::default()) {
        // The parser reports invalid tokens.
        let Ok((token, span)) = token else { return Ok(()) };
        let range = span.start_offset as usize..span.end_offset as usize;
        match &token {
            Token::VariableStart | Token::BlockStart => {
                levels = vec![0];
                operators = 0;
            }
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => {
                levels.push(1);
                operators += 1;
            }
            Token::ParenClose | Token::BracketClose | Token::BraceClose => {
                // A call or a subscript is one more operation on the expression before it.
                let closed = levels.pop().unwrap_or(0);
                operators = operators.saturating_sub(closed) + 1;
                if let Some(level) = levels.last_mut() {
                    *level += 1;
                }
            }
            Token::Comma => {
                if let Some(level) = levels.last_mut() {
                    operators = operators.saturating_sub(std::mem::take(level));
                }
            }
            Token::Ident("and" | "or" | "not" | "is" | "in" | "if" | "else")
            | Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::FloorDiv
            | Token::Pow
            | Token::Mod
            | Token::Dot
            | Token::Tilde
            | Token::Pipe
            | Token::Eq
            | Token::Ne
            | Token::Gt
            | Token::Gte
            | Token::Lt
            | Token::Lte => {
                operators += 1;
                if let Some(level) = levels.last_mut() {
                    *level += 1;
                }
            }
            _ => {}
        }
        if is_statement_start {
            match &token {
                Token::Ident(
                    "for" | "if" | "with" | "autoescape" | "filter" | "block" | "macro" | "call" | "set",
                ) => {
                    blocks.push(1);
                }
                Token::Ident("elif") => {
                    if let Some(block) = blocks.last_mut() {
                        *block += 1;
                    }
                }
                Token::Ident(name) if name.starts_with("end") => {
                    blocks.pop();
                }
                _ => {}
            }
        }
        // A `set` with a value has no `endset`.
        if matches!(token, Token::Assign) && levels.len() == 1 && !is_expression {
            remove_inline_set(&mut blocks, source, &range);
        }
        is_statement_start = matches!(token, Token::BlockStart);
        if operators > MAX_OPERATION_DEPTH {
            let message =
                format!("more than {MAX_OPERATION_DEPTH} nested operations; use {{% set %}} for parts of it");
            return Err(CompileError { message, range: Some(range) });
        }
        if blocks.iter().sum::<usize>() > MAX_STATEMENT_DEPTH {
            let message = format!("more than {MAX_STATEMENT_DEPTH} nested statements");
            return Err(CompileError { message, range: Some(range) });
        }
    }
    Ok(())
}

/// Removes the block that was counted for `{% set x = .. %}`.
fn remove_inline_set(blocks: &mut Vec<usize>, source: &str, assign: &std::ops::Range<usize>) {
    let before = source.get(..assign.start).unwrap_or_default();
    let statement =
        before.rfind("{%").map_or("", |at| before[at + 2..].trim_start_matches(['-', '+']).trim_start());
    if statement.starts_with("set ") || statement.starts_with("set\n") || statement.starts_with("set\t") {
        blocks.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeply_nested_source_is_refused_and_long_lists_are_accepted() {
        let many = |part: &str, join: &str, count: usize| vec![part; count].join(join);
        for deep in [
            many("a", "+", 100_000),
            many("a", ".", 100_000),
            many("a", "|", 100_000),
            many("a", " and ", 100_000),
            format!("{}a", "not ".repeat(100_000)),
            format!("{}a", "-".repeat(100_000)),
            format!("{}a{}", "(".repeat(100_000), ")".repeat(100_000)),
            format!("a{}", "[0]".repeat(100_000)),
            format!("a{}", "()".repeat(100_000)),
            format!("{}a", "a if a else ".repeat(100_000)),
        ] {
            assert!(check(&deep, true).is_err(), "{}", &deep[..20]);
            assert!(check(&format!("{{{{ {deep} }}}}"), false).is_err(), "{}", &deep[..20]);
        }
        for wide in [format!("[{}]", many("a.b", ",", 100_000)), many("a == 1", " or ", 50)] {
            assert!(check(&wide, true).is_ok(), "{}", &wide[..20]);
        }
        assert!(check(&"{% set x = a + b %}".repeat(1000), false).is_ok());
        assert!(check(&"{{ a + b }}{% if a %}{% endif %}".repeat(1000), false).is_ok());
        assert!(check(&"{% if a %}".repeat(1000), false).is_err());
        assert!(check(&format!("{{% if a %}}{}", "{% elif a %}".repeat(100_000)), false).is_err());
    }
}
