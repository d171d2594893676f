//! The doors that clients come through. A door knows a transport and nothing of policy.

pub(crate) mod http;
pub(crate) mod pipe;
pub(crate) mod unserved;
