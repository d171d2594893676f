//! The doors that clients come through. A door knows a transport and nothing of policy.

pub(crate) mod admission;
mod callback;
pub(crate) mod http;
mod listener;
pub(crate) mod pipe;
pub(crate) mod unserved;
