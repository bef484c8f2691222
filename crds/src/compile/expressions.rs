//! What a CEL expression reads of a request, found in its tree.

use std::collections::BTreeSet;

use cel::Program;
use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};

/// Fields of `request`.
pub(super) const REQUEST_FIELDS: [&str; 5] = ["path", "query", "headers", "method", "body"];

/// What an expression reads.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reads {
    /// Fields of `request`: `path`, `body`, and perhaps some that do not exist.
    pub(super) fields: BTreeSet<String>,
    /// Variables of `request.path`.
    pub(super) path_variables: BTreeSet<String>,
}

/// What `source` reads; nothing if it is not CEL.
pub(super) fn reads(source: &str) -> Reads {
    let mut reads = Reads::default();
    if let Ok(program) = Program::compile(source) {
        visit(&program.expression().expr, &mut reads);
    }
    reads
}

/// The field that `expression` selects, and what it selects it from: `a.b` and `a['b']`.
fn selection(expression: &Expr) -> Option<(&Expr, &str)> {
    match expression {
        Expr::Select(select) => Some((&select.operand.expr, &select.field)),
        Expr::Call(call) if call.func_name == "_[_]" => match &call.args[..] {
            [from, IdedExpr { expr: Expr::Literal(LiteralValue::String(key)), .. }] => Some((&from.expr, key.inner())),
            _ => None,
        },
        _ => None,
    }
}

fn visit(expression: &Expr, reads: &mut Reads) {
    if let Some((from, field)) = selection(expression) {
        if matches!(from, Expr::Ident(name) if name == "request") {
            reads.fields.insert(field.to_owned());
        }
        if let Some((Expr::Ident(root), "path")) = selection(from)
            && root == "request"
        {
            reads.path_variables.insert(field.to_owned());
        }
        visit(from, reads);
        return;
    }
    match expression {
        Expr::Call(call) => {
            call.target.iter().for_each(|target| visit(&target.expr, reads));
            call.args.iter().for_each(|argument| visit(&argument.expr, reads));
        }
        Expr::Comprehension(comprehension) => {
            let c = comprehension;
            for part in [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result] {
                visit(&part.expr, reads);
            }
        }
        Expr::List(list) => list.elements.iter().for_each(|element| visit(&element.expr, reads)),
        Expr::Map(map) => map.entries.iter().for_each(|entry| visit_entry(&entry.expr, reads)),
        Expr::Struct(message) => message.entries.iter().for_each(|entry| visit_entry(&entry.expr, reads)),
        Expr::Select(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn visit_entry(entry: &EntryExpr, reads: &mut Reads) {
    match entry {
        EntryExpr::StructField(field) => visit(&field.value.expr, reads),
        EntryExpr::MapEntry(entry) => {
            visit(&entry.key.expr, reads);
            visit(&entry.value.expr, reads);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_found_wherever_they_are() {
        let check = |source: &str, fields: &[&str], path_variables: &[&str]| {
            let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let expected = Reads { fields: set(fields), path_variables: set(path_variables) };
            assert_eq!(reads(source), expected, "{source}");
        };
        check("request.path.orderId", &["path"], &["orderId"]);
        check("request.path['orderId']", &["path"], &["orderId"]);
        check("request['path'].a", &["path"], &["a"]);
        check("'o-' + request.path.a + request.body.b", &["body", "path"], &["a"]);
        check("has(request.path.a) ? request.path.a : request.query.b", &["path", "query"], &["a"]);
        check("[request.path.a][0]", &["path"], &["a"]);
        check("request.path.a.size()", &["path"], &["a"]);
        check("'path'", &[], &[]);
    }
}
