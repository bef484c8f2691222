//! Compiles the Rust code of the book and of the README, as documentation tests.
//!
//! They are here because this crate already knows all that they use: the SDK, the kit, serde and tokio.

macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        $(
            #[doc = include_str!(concat!("../../../../", $path))]
            pub(crate) struct $name;
        )*
    };
}

pages! {
    Introduction: "docs/src/introduction.md",
    Tutorial: "docs/src/tutorial.md",
    Concepts: "docs/src/concepts.md",
    Guarantees: "docs/src/guarantees.md",
    Limits: "docs/src/limits.md",
    Architecture: "docs/src/architecture.md",
    Idempotency: "docs/src/how-to/idempotency.md",
    Transactions: "docs/src/how-to/transactions.md",
    Sends: "docs/src/how-to/sends.md",
    Egress: "docs/src/how-to/egress.md",
    Testing: "docs/src/how-to/testing.md",
    HttpService: "docs/src/how-to/http-service.md",
    Debugging: "docs/src/how-to/debugging.md",
    HotKeys: "docs/src/how-to/hot-keys.md",
    FunctionProtocol: "docs/src/reference/function-protocol.md",
    Keys: "docs/src/reference/keys.md",
    Readme: "README.md",
}
