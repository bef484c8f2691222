//! The operator as a process over a real API server and etcd, without a node: storms, and what goes wrong in the middle of them.

mod storms {
    pub(crate) mod site;
    pub(crate) mod wrong;

    mod definitions;
    mod drift;
    mod fields;
    mod kills;
    mod leaders;
    mod rivals;
}
