//! The operator as a process over a real API server and etcd, without a node: storms, and what goes wrong in the middle of them.

mod storms {
    pub(crate) mod site;

    mod drift;
    mod kills;
    mod leaders;
}
