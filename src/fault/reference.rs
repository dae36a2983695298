//! How a request refers to an object, for the error about an object that the caller's group has not made.

use http::StatusCode;

/// How a request refers to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectReference {
    /// A response in the path.
    ResponseInPath,
    /// Another object in the path.
    ObjectInPath,
    /// `previous_response_id`
    PreviousResponse,
    /// `conversation`
    Conversation,
    /// A container of a tool.
    Container,
    /// A vector store.
    VectorStore,
    /// A file.
    File,
    /// An output item of an earlier response.
    Item,
    /// `prompt_cache_options.comparison_response_id`
    ComparedResponse,
}

impl ObjectReference {
    /// The HTTP status.
    pub(super) const fn status(self) -> StatusCode {
        match self {
            // This is OpenAI's own status for such a response, which clients recognise.
            Self::PreviousResponse => StatusCode::BAD_REQUEST,
            _ => StatusCode::NOT_FOUND,
        }
    }

    /// The `error.code`.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::ResponseInPath | Self::ComparedResponse => "response_not_found",
            Self::ObjectInPath => "object_not_found",
            Self::PreviousResponse => "previous_response_not_found",
            Self::Conversation => "conversation_not_found",
            Self::Container => "container_not_found",
            Self::VectorStore => "vector_store_not_found",
            Self::File => "file_not_found",
            Self::Item => "item_not_found",
        }
    }

    /// The `error.param`: the field of the request's body that names the object, if only one field can name such an object.
    pub(super) const fn param(self) -> Option<&'static str> {
        match self {
            Self::PreviousResponse => Some("previous_response_id"),
            Self::Conversation => Some("conversation"),
            Self::ComparedResponse => Some("prompt_cache_options.comparison_response_id"),
            Self::ResponseInPath
            | Self::ObjectInPath
            | Self::Container
            | Self::VectorStore
            | Self::File
            | Self::Item => None,
        }
    }

    /// What the request names, and what the caller can do.
    pub(super) const fn subject_and_advice(self) -> (&'static str, &'static str) {
        match self {
            Self::ResponseInPath => ("response with this id", "Create a new response."),
            Self::ObjectInPath => ("object with the id in the path", "Create a new object."),
            Self::PreviousResponse => (
                "response with this previous_response_id",
                "Send the whole conversation instead.",
            ),
            Self::Conversation => ("conversation with this id", "Create a new conversation."),
            Self::Container => ("container that the body names", "Create a new container."),
            Self::VectorStore => ("vector store that the body names", "Create a new vector store."),
            Self::File => ("file that the body names", "Upload the file again."),
            Self::Item => ("item that the body refers to", "Send the item itself instead."),
            Self::ComparedResponse => (
                "response with this comparison_response_id",
                "Send the request without it.",
            ),
        }
    }
}
