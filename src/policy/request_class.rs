//! The part of an upstream that a request needs.

use crate::{endpoint::EndpointClass, ids::ModelKey};

/// The part of an upstream that a request needs. A limit or a failure of another part does not concern the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestClass {
    /// The class of the endpoint that the request calls.
    pub endpoint: EndpointClass,
    /// The model that the request names.
    pub model: Option<ModelKey>,
}

impl RequestClass {
    /// A request for text from `model`.
    pub const fn generation(model: Option<ModelKey>) -> Self {
        Self {
            endpoint: EndpointClass::Generation,
            model,
        }
    }
}
