//! What anybody may call.

/// Path templates of routes that need no session, as they are declared: `/problems/{code}`.
///
/// Each is written out. A pattern would open what is added under it later.
#[derive(Clone, Copy, Debug)]
pub struct PublicPaths(pub &'static [&'static str]);

impl PublicPaths {
    /// Whether anybody may call the route with this template.
    pub fn include(self, template: &str) -> bool {
        self.0.contains(&template)
    }
}
