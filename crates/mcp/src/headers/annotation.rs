//! `x-mcp-header` annotations.

/// One parameter of a tool that is mirrored into `Mcp-Param-{name}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamAnnotation {
    /// The header's name behind `Mcp-Param-`.
    pub name: String,
    /// The keys that lead to the value within `arguments`.
    pub path: Vec<String>,
}
