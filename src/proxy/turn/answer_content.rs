//! What the answer to a request contains that Steadfast reads.

/// What a good answer to a request contains. It follows from the request alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum AnswerContent {
    /// Nothing that is read: models, images, audio, the content of a file.
    Nothing,
    /// The result of a model, which is not stored.
    Result,
    /// The result of a model, which is stored and can be named by its id.
    StoredResult,
    /// A response that the request makes.
    NewResponse,
    /// A response that an earlier request has made: the request reads, resumes or cancels it.
    EarlierResponse,
    /// An object of the account, or a list of objects.
    Object,
}

impl AnswerContent {
    /// Whether a good answer names objects of the account that later requests can name.
    pub const fn names_objects(self) -> bool {
        match self {
            Self::Nothing | Self::Result => false,
            Self::StoredResult | Self::NewResponse | Self::EarlierResponse | Self::Object => true,
        }
    }
}
