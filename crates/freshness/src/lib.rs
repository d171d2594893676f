//! Who has read which version of what, and whether that is known to be stale.
//!
//! A tool's dependence on resources is declared ([`Declared`]), never guessed. [`Views`] learns from reads, writes and
//! changes, and says at the moment of a decision how an agent's knowledge of a resource stands ([`State`]). The promise is
//! that nothing *known* to be stale is called fresh; it is no lock, and two writers that decide at the same moment both
//! go on. This crate does no I/O, knows neither MCP nor policy, and forgets in one direction only: what it has forgotten
//! is `unknown`, never `fresh`.

mod declared;
mod template;
mod views;

pub use declared::{Declared, Dependence, Mention, Named};
pub use template::{MENTIONS_MAX, Roots, Template, TemplateError};
pub use views::{Bounds, Resource, Standing, State, Version, Viewer, Views, Writing};
