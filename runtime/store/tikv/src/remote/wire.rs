//! The messages of the public protocol, generated from the `.proto` files of this crate.

macro_rules! packages {
    ($($name:ident $package:tt),*) => {
        $(
            #[allow(
                missing_docs,
                unreachable_pub,
                dead_code,
                clippy::pedantic,
                clippy::use_self,
                clippy::struct_excessive_bools,
                reason = "generated"
            )]
            pub(crate) mod $name {
                tonic::include_proto!($package);
            }
        )*
    };
}

packages!(
    errorpb "errorpb",
    keyspacepb "keyspacepb",
    kvrpcpb "kvrpcpb",
    metapb "metapb",
    pdpb "pdpb",
    tikvpb "tikvpb"
);
