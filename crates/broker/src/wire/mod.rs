//! Requests as bytes: what a body must look like before the codec may see it. Called by the server.

mod newer;
mod pieces;
mod shape;
mod shapes;
#[cfg(test)]
mod tests;

pub(crate) use newer::{Older, answer_coded, newer, older};
pub(crate) use pieces::Pieces;
pub(crate) use shape::{ShapeError, check};
