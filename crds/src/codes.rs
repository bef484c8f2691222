//! Every problem code, with its explanation. The page `error-codes.md` and `tandem check --explain` are made from this.
//!
//! A code is never reused for something else: people search for it. `E0xx` is about one file or resource alone, `E1xx`
//! about the resources as a whole, `W2xx` about what is allowed but probably not meant.

use crate::problem::Severity;

/// One kind of problem.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// `E104`
    pub code: &'static str,
    /// Whether it keeps the resources from being applied.
    pub severity: Severity,
    /// A heading.
    pub title: &'static str,
    /// What it means, in full sentences.
    pub explanation: &'static str,
    /// What to do, in one line, where the problem itself knows nothing better.
    pub help: &'static str,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $severity:ident $code:literal, $title:literal, $explanation:literal, $help:literal;)+) => {
        $($(#[$doc])* #[doc = $title] pub static $name: Code = Code {
            code: $code,
            severity: Severity::$severity,
            title: $title,
            explanation: $explanation,
            help: $help,
        };)+
        /// All codes, in order.
        pub static ALL: &[&Code] = &[$(&$name),+];
    };
}

codes! {
    MALFORMED_YAML = Error "E001", "The file is not YAML",
        "The file, or one document in it, cannot be parsed. The position is where the parser gave up; the mistake is there or shortly before. Other documents of the same file are still checked.",
        "check indentation, quotes and brackets just before this place";
    NOT_A_RESOURCE = Error "E002", "A document is not a resource",
        "Every document must be an object with `apiVersion`, `kind` and `metadata.name`, as Kubernetes has it.",
        "give it apiVersion, kind and metadata.name";
    UNKNOWN_KIND = Error "E003", "The kind or version is not known",
        "The document belongs to the group `tandem.dev`, but its version or kind does not exist. Kinds of other groups are skipped, because one directory may hold a whole application.",
        "use apiVersion tandem.dev/v1alpha1 and one of Function, FunctionRoute, FunctionEgress, FunctionRuntime";
    UNKNOWN_FIELD = Error "E004", "A field does not exist",
        "The kind has no such field. A cluster would drop it silently, so that the resource would not do what it says.",
        "remove it";
    DUPLICATE_KEY = Error "E005", "A field is given twice",
        "The same key stands twice in one object. Parsers disagree on which one counts.",
        "keep one of them";
    WRONG_TYPE = Error "E006", "A value has the wrong type",
        "For example a text where a number is expected. YAML reads `yes`, `1.0` and `0x10` in surprising ways: quote what is meant as text.",
        "give a value of the right type";
    OUT_OF_BOUNDS = Error "E007", "A value is outside of what its field allows",
        "Too long, too short, too large, too small, too many entries, not one of the listed values, or not of the form that the field has. The bounds of every field are in the reference of resources.",
        "see the field's bounds in the reference of resources";
    MISSING_FIELD = Error "E008", "A required field is missing",
        "The field has no default, because no value would be right for everybody.",
        "add the field";
    RULE_BROKEN = Error "E009", "A rule on several fields is broken",
        "Some combinations of fields make no sense, for example a Function with both an image and an endpoint. A cluster refuses them, too, with the same message.",
        "change the fields that the message names";
    DUPLICATE_OBJECT = Error "E010", "The same resource is declared twice",
        "Two documents have the same kind and name. In a cluster the one that is applied last would win.",
        "rename or remove one of them";
    UNREADABLE_RESOURCE = Error "E011", "A resource cannot be read",
        "The resource follows the schema, as far as we can tell, and still cannot be decoded.",
        "compare it with the sample in the reference of resources";
    TOO_LARGE = Error "E012", "A file is too large",
        "Files of resources are limited, and so is the number of values in one document (aliases count each time they are used), so that a mistake cannot take the machine's memory.",
        "split the file";
    UNREADABLE_FILE = Error "E013", "A file that is named cannot be used",
        "A configuration names a file or a directory (a certificate, a directory of resources) that is not there, or that this process may not read.",
        "check the path, who owns the file, and where it is mounted";

    INVALID_NAME = Error "E101", "A name is not allowed",
        "Names of resources are DNS labels: 1 to 63 of a-z, 0-9 and `-`, with a letter or digit at both ends. Names of handlers and states are identifiers: they start with a letter, and have up to 63 of a-z, A-Z, 0-9, `_` and `-`.",
        "choose a name of the allowed form";
    SEVERAL_RUNTIMES = Error "E102", "There is more than one FunctionRuntime",
        "The functions of a namespace share one runtime, because a flow over them is one transaction in one store.",
        "keep one FunctionRuntime";
    SEVERAL_NAMESPACES = Error "E103", "The resources are from several namespaces",
        "One topology is compiled for each namespace: functions of different namespaces cannot see one another.",
        "check the namespaces one by one";
    UNKNOWN_FUNCTION = Error "E104", "A function does not exist",
        "A route leads to a function that no Function resource declares. Its requests could never run.",
        "declare a Function of that name, or name another one";
    UNKNOWN_HANDLER = Error "E105", "A handler does not exist",
        "The Function resource pins down its handlers (`spec.handlers`), and the one that the route leads to is not among them.",
        "add the handler to the Function, or name another one";
    INVALID_METHOD = Error "E106", "The HTTP method is not allowed",
        "A route takes one of GET, POST, PUT, PATCH and DELETE, written in upper case.",
        "use one of GET, POST, PUT, PATCH, DELETE";
    INVALID_PATH = Error "E107", "The path pattern is not valid",
        "A pattern starts with `/`. `{name}` takes one segment or the end of one, `{*name}` takes the rest of the path and must be last. A name is an identifier (a letter, then letters, digits and `_`), so that expressions can say `request.path.name`, and stands once in a pattern.",
        "write a pattern like /orders/{orderId}";
    AMBIGUOUS_ROUTE = Error "E108", "Two routes take the same requests",
        "Two patterns of the same method match the same path, and neither is more special than the other: they are equal, or differ only in the names of their variables. A fixed segment wins over a variable, so `/orders/new` and `/orders/{orderId}` are fine together.",
        "change the path or the method of one of them";
    INVALID_EXPRESSION = Error "E109", "An expression is not valid",
        "Keys and idempotency keys are CEL expressions over one variable, `request`, with the fields `path`, `query`, `headers`, `method` and `body`. A text that is meant literally needs quotes within the expression: `\"'all'\"`.",
        "write an expression like request.path.orderId";
    UNKNOWN_PATH_VARIABLE = Error "E110", "An expression uses a path variable that the route does not have",
        "`request.path` has exactly the variables of the route's pattern. Every request would be refused.",
        "add the variable to the path, or use one that it has";
    NO_BODY_TO_READ = Error "E111", "An expression reads a body that is not JSON",
        "The route has `body: Raw`, so its bytes are handed to the function unread, and `request.body` does not exist.",
        "take the value from path, query or headers, or use body: Json";
    INVALID_DURATION = Error "E112", "A duration is not valid",
        "A duration is a whole number with a unit, `ms`, `s`, `m` or `h`: `1500ms`, `5s`, `2m`, `24h`.",
        "write a duration like 5s";
    DURATION_OUT_OF_BOUNDS = Error "E113", "A duration is too short or too long",
        "Deadlines and timeouts are at least 1ms and at most 60s: a request that takes longer is better split by a send. Retention is at least 1s and at most 8784h (a year).",
        "choose a duration within the bounds";
    LIMIT_OUT_OF_BOUNDS = Error "E114", "A limit is out of bounds",
        "Limits protect the runtime; each has a smallest and a largest value, which are in the reference of resources.",
        "choose a value within the bounds";
    DUPLICATE_NAME = Error "E115", "A name stands twice in a list",
        "Handlers, states and callers are lists by name.",
        "remove or rename one of them";
    UNKNOWN_CALLER = Error "E116", "A caller does not exist",
        "`spec.callers` names a function that no Function resource declares. Perhaps it was renamed, and the renamed one may now not call.",
        "name a function that exists, or remove the entry";
    NO_WORKERS = Error "E117", "It is not clear where the function runs",
        "A Function needs exactly one of `image` (workers that the cluster, or `tandem dev`, starts) and `endpoint` (a worker that somebody else runs).",
        "set exactly one of image and endpoint";
    INVALID_URL = Error "E118", "The URL of an endpoint is not valid",
        "It must be `http://host:port` or `https://host:port`, with a path only for the HTTP profile, and without query and fragment.",
        "write a URL like http://localhost:9000";
    NO_WAY_OUT = Error "E119", "An egress says nothing about where it leads",
        "A FunctionEgress needs exactly one way out, today `stream`.",
        "add stream: {}";
    STATE_CHANGED = Error "E120", "A state changes its kind or type",
        "Values are stored already, and could not be read as the new type. A change is possible only from a type to `Any`.",
        "stored values could not be read";
    SLOTS_CHANGED = Error "E121", "The number of slots changes",
        "Every row is stored under the slot of its key. With another number of slots nothing that is stored would be found again.",
        "keep the number, or start with an empty store";
    RESERVED_PATH = Error "E122", "The path belongs to the runtime",
        "Everything below `/flows` (outcomes of requests) and `/egress` (streams) is answered by the runtime itself.",
        "use another first segment";
    NO_STORE = Error "E123", "A runtime says nothing about its store",
        "`spec.store` needs exactly one of its fields, `embedded` or `tikv`.",
        "use store: {embedded: {}}, or leave store out";
    NO_HANDLERS = Error "E124", "A function of the HTTP profile lists no handlers",
        "A worker of the HTTP profile is a plain web server: it has no handshake in which it could say what its handlers and states are. The Function resource says it instead.",
        "list the handlers, and the states, in spec";
    COMPLEX_EXPRESSION = Error "E125", "An expression is too complicated",
        "Expressions run for every request, on the stack of the thread that takes it. Brackets may be nested 6 deep, and an expression may have up to 32 operators and brackets outside of its texts.",
        "take a simpler key, or compute it in the client";

    STATE_REMOVED = Warning "W201", "A state is no longer declared",
        "Its stored values stay in the store, but no handler can reach them any more.",
        "declare it again if its values still matter";
    TIMEOUT_OVER_DEADLINE = Warning "W202", "A timeout is longer than the deadline",
        "The flow ends at the route's deadline, so the handler's longer timeout has no effect there.",
        "lengthen the deadline or shorten the timeout";
    ACCEPT_READ_ONLY = Warning "W203", "A route accepts requests for a handler that only reads",
        "With `reply: Accept` the client is answered before the flow runs. A handler that only reads has nothing but its answer, which the client would have to fetch in a second request.",
        "use reply: Wait";
    BODY_OF_GET = Warning "W204", "An expression reads the body of a GET or DELETE request",
        "Most clients send no body with these methods, and proxies may drop it: such requests would be refused.",
        "take the value from path, query or headers";
    NO_FUNCTIONS = Warning "W205", "No function is declared",
        "There are resources, but no Function among them, so nothing can run.",
        "add a Function";
    STATE_STAYS = Warning "W206", "The deletion policy of a function is not acted on",
        "Functions of a namespace share one store, which serves while one of them is deleted: its state cannot be removed on its own, and stays until it is deleted together with the runtime. A Function of the same name finds it again.",
        "use deletionPolicy: Retain; to remove state, use deletionPolicy: Delete of the FunctionRuntime";
}

/// The page of `code`, in upper or lower case.
pub fn find(code: &str) -> Option<&'static Code> {
    ALL.iter().copied().find(|known| known.code.eq_ignore_ascii_case(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_in_order() {
        assert!(ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn the_letter_says_the_severity() {
        for code in ALL {
            let letter = if code.severity == Severity::Error { 'E' } else { 'W' };
            assert!(code.code.starts_with(letter), "{}", code.code);
            assert!(code.explanation.ends_with(['.', '`']), "{}", code.code);
            assert!(!code.help.is_empty() && !code.help.ends_with('.'), "{}", code.code);
        }
    }
}
