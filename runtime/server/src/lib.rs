//! The runtime as a process: what it is told, where its state lives, where it listens, how it ends.
//!
//! ```text
//! file + flags ─configuration─▶ settings ─store─▶ one Store ─serving─▶ runtime + ports ─signals─▶ drained
//!                                    └─topology─▶ watched
//! ```
//!
//! | module | concept |
//! | --- | --- |
//! | [`configuration`] | the file: its types, its schema, reading it with positions |
//! | [`flags`] | the command line of `tandem-runtime`, which overrides the file |
//! | [`settings`] | what counts in the end, checked |
//! | [`store`] | opens the store that is asked for; the one place where it is decided which it is |
//! | [`topology`] | resources compiled, with the topology of the last run remembered |
//! | [`apply`] | which topology runs: the last one that was right |
//! | [`push`] | what an operator says to a runtime, and hears from it |
//! | [`watch`] | notices that files have changed |
//! | [`reconfigure`] | what a change of the file means while it runs |
//! | [`serving`] | the runtime and its ports |
//! | [`waiting`] | the admin port, while no bundle is right |
//! | [`signals`] | requests to end |
//! | [`purge`] | removes all state of an installation |
//! | [`process`] | all of it together, from the first line of the log to the last |
//!
//! `tandem dev` is made of the same parts, and adds workers and a terminal.

pub mod apply;
pub mod configuration;
pub mod files;
pub mod flags;
pub mod process;
pub mod purge;
pub mod push;
pub mod reconfigure;
pub mod serving;
pub mod settings;
pub mod signals;
pub mod store;
pub mod topology;
pub mod waiting;
pub mod watch;
