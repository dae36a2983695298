//! The closed list of endpoints, and one table of their properties.
//!
//! `Endpoint::traits` is that table. Each row is one endpoint and each column is one question that the proxy asks. The
//! match has no `_` arm, so that a new endpoint does not compile until it has an answer to every question. No other
//! module matches on an endpoint to find out its properties.
//!
//! To add an endpoint, add the variant, its row, and its place in [`Endpoint::ALL`]. `proxy/request/target.rs` finds the
//! endpoint of a path, and contains the paths that an error message suggests. Behaviour beyond the columns of the
//! table is a phase of `proxy`, as `models` is for the lists of models.

/// The endpoint that a request calls: a value of the metric label `endpoint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/responses`
    Responses,
    /// `POST /v1/responses/compact`
    Compact,
    /// `/v1/responses/{id}` and the paths below it
    Response,
    /// `/v1/models` and `/v1/models/{id}`
    Models,
    /// `/v1/chat/completions`, and the older `/v1/completions`
    ChatCompletions,
    /// `/v1/messages` of the Messages API
    Messages,
    /// `/v1/embeddings`
    Embeddings,
    /// `/v1/images` and the paths below it
    Images,
    /// `/v1/audio` and the paths below it
    Audio,
    /// `/v1/organization` and the paths below it
    Administration,
    /// Any other path under `/v1`
    Other,
}

/// The part of an upstream's service that an endpoint belongs to. Limits and failures of one part say nothing about
/// the others, so health is kept for each part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointClass {
    /// A model generates text.
    Generation,
    /// The lists of models.
    Models,
    /// Objects that the account stores: responses, files, batches and so on.
    Objects,
    /// Images.
    Images,
    /// Speech and transcriptions.
    Audio,
    /// Embeddings.
    Embeddings,
    /// The administration of the account.
    Administration,
}

impl EndpointClass {
    /// The number of classes.
    pub const COUNT: usize = Self::ALL.len();

    /// Every class, in the order of its discriminants.
    pub const ALL: [Self; 7] = [
        Self::Generation,
        Self::Models,
        Self::Objects,
        Self::Images,
        Self::Audio,
        Self::Embeddings,
        Self::Administration,
    ];

    /// The name of the class, for programs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Models => "models",
            Self::Objects => "objects",
            Self::Images => "images",
            Self::Audio => "audio",
            Self::Embeddings => "embeddings",
            Self::Administration => "administration",
        }
    }
}

/// When the body of a request is read for its model, its session key and the objects that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspection {
    /// The body is always inspected: the endpoint takes JSON only, so an upstream reads every body as JSON, even one
    /// with another content type.
    Always,
    /// The body is inspected only if the content type of the request is JSON.
    IfJson,
    /// The body is inspected only if its content type is JSON or `multipart/form-data`.
    Forms,
    /// The body is inspected only if its content type is JSON. Of a form, which may be a large upload, the fields before
    /// the first file are read, and the rest is passed on as it arrives. Where a form names its model, it is inspected as
    /// with [`Inspection::Forms`].
    Fields,
}

/// The routing of requests that name neither a session key nor an object that an upstream owns. A request that names
/// one of them is sticky at every endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeylessRouting {
    /// The request goes to the upstream of its conversation, which is recognised by its beginning: its instructions and
    /// its messages up to the first one of the user.
    ByContent,
    /// The request goes to the less loaded of two random upstreams.
    Balanced,
}

/// The requests that a confined group may send. A confined group may use only some models, or shares its upstream
/// accounts with other groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfinedAccess {
    /// `POST` only: the body names the model, and the request reads and changes nothing that is stored.
    Post,
    /// `GET` only.
    Get,
    /// Operations on the one response that the path names, and the token count.
    NamedResponse,
    /// `POST` to a path that neither reads nor changes what is stored. Also the creation of objects that can be kept
    /// apart from those of other groups, and operations on such an object that the path names.
    NamedObject,
}

/// One row of the table.
struct EndpointTraits {
    label: &'static str,
    class: EndpointClass,
    inspection: Inspection,
    keyless_routing: KeylessRouting,
    is_repeatable: bool,
    is_usage_read: bool,
    names_objects: bool,
    runs_model: bool,
    confined_access: ConfinedAccess,
}

impl Endpoint {
    /// Every endpoint, in the order of its discriminants.
    pub const ALL: [Self; 11] = [
        Self::Responses,
        Self::Compact,
        Self::Response,
        Self::Models,
        Self::ChatCompletions,
        Self::Messages,
        Self::Embeddings,
        Self::Images,
        Self::Audio,
        Self::Administration,
        Self::Other,
    ];

    /// The table of the properties of each endpoint.
    #[rustfmt::skip]
    const fn traits(self) -> EndpointTraits {
        use ConfinedAccess::{Get, NamedResponse, Post, NamedObject};
        use EndpointClass::{Administration, Audio, Embeddings, Generation, Images, Models, Objects};
        use Inspection::{Always, Fields, Forms, IfJson};
        use KeylessRouting::{Balanced, ByContent};
        const YES: bool = true;
        const NO: bool = false;
        let (label, class, inspection, keyless_routing, is_repeatable, is_usage_read, names_objects, runs_model, confined_access) = match self {
            //                        label               health          body       without    repeat- usage body can runs a  confined
            //                                            kept with       inspected  a key      able    read  name obj model  groups may
            Self::Responses       => ("responses",        Generation,     Always,    ByContent, YES,    YES,  YES,     YES,   Post),
            Self::Compact         => ("compact",          Generation,     Always,    ByContent, YES,    YES,  YES,     YES,   Post),
            Self::Response        => ("response",         Objects,        IfJson,    Balanced,  NO,     YES,  YES,     YES,   NamedResponse),
            Self::Models          => ("models",           Models,         IfJson,    Balanced,  NO,     NO,   NO,      NO,    Get),
            Self::ChatCompletions => ("chat_completions", Generation,     Always,    ByContent, YES,    YES,  YES,     YES,   Post),
            Self::Messages        => ("messages",         Generation,     Always,    ByContent, YES,    YES,  YES,     YES,   Post),
            Self::Embeddings      => ("embeddings",       Embeddings,     Always,    Balanced,  YES,    YES,  NO,      YES,   Post),
            Self::Images          => ("images",           Images,         Forms,     Balanced,  NO,     NO,   YES,     YES,   NamedObject),
            Self::Audio           => ("audio",            Audio,          Forms,     Balanced,  NO,     NO,   NO,      YES,   NamedObject),
            Self::Administration  => ("administration",   Administration, IfJson,    Balanced,  NO,     NO,   NO,      YES,   NamedObject),
            Self::Other           => ("other",            Objects,        Fields,    Balanced,  NO,     NO,   YES,     YES,   NamedObject),
        };
        EndpointTraits {
            label, class, inspection, keyless_routing, is_repeatable, is_usage_read, names_objects, runs_model, confined_access,
        }
    }

    /// The metric label `endpoint`.
    pub const fn label(self) -> &'static str {
        self.traits().label
    }

    /// The part of an upstream's service that the endpoint belongs to.
    pub const fn class(self) -> EndpointClass {
        self.traits().class
    }

    /// When the body of a request is inspected.
    pub const fn inspection(self) -> Inspection {
        self.traits().inspection
    }

    /// The routing of requests that name neither a session key nor an owned object.
    pub const fn keyless_routing(self) -> KeylessRouting {
        self.traits().keyless_routing
    }

    /// Whether a `POST` request may be sent once more although an upstream may have begun to work on it. Such a request
    /// generates something, so the caller pays twice at worst.
    pub const fn is_repeatable(self) -> bool {
        self.traits().is_repeatable
    }

    /// Whether every response is read for its usage, its ids and its errors as it streams by. Of the other endpoints, only
    /// the responses that contain an object are read (`proxy/request/answer_content`).
    pub const fn is_usage_read(self) -> bool {
        self.traits().is_usage_read
    }

    /// Whether `accept-encoding` is removed from the request: a compressed response could not be read.
    pub const fn drops_accept_encoding(self) -> bool {
        self.is_usage_read()
    }

    /// Whether the body of a request can name an object that an upstream has made: an earlier response, a file and so on.
    pub const fn names_objects(self) -> bool {
        self.traits().names_objects
    }

    /// Whether a request can run a model, so that the caller's group must be allowed to use it.
    pub const fn runs_model(self) -> bool {
        self.traits().runs_model
    }

    /// Which requests a confined group may send.
    pub const fn confined_access(self) -> ConfinedAccess {
        self.traits().confined_access
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        let yes_or_no = |answer| if answer { "yes" } else { "no" };
        let row = |endpoint: Endpoint| {
            format!(
                "{:<16} | {:<14} | {:<6} | {:<9} | {:<10} | {:<10} | {:<12} | {:<10} | {:<10} | {:?}",
                endpoint.label(),
                endpoint.class().label(),
                format!("{:?}", endpoint.inspection()),
                format!("{:?}", endpoint.keyless_routing()),
                yes_or_no(endpoint.is_repeatable()),
                yes_or_no(endpoint.is_usage_read()),
                yes_or_no(endpoint.drops_accept_encoding()),
                yes_or_no(endpoint.names_objects()),
                yes_or_no(endpoint.runs_model()),
                endpoint.confined_access(),
            )
        };
        let table = Endpoint::ALL.map(row).join("\n");
        // label | class | inspected | without a key | repeatable | usage read | drops accept-encoding | names objects |
        // runs a model | confined groups may
        let expected = "\
responses        | generation     | Always | ByContent | yes        | yes        | yes          | yes        | yes        | Post
compact          | generation     | Always | ByContent | yes        | yes        | yes          | yes        | yes        | Post
response         | objects        | IfJson | Balanced  | no         | yes        | yes          | yes        | yes        | NamedResponse
models           | models         | IfJson | Balanced  | no         | no         | no           | no         | no         | Get
chat_completions | generation     | Always | ByContent | yes        | yes        | yes          | yes        | yes        | Post
messages         | generation     | Always | ByContent | yes        | yes        | yes          | yes        | yes        | Post
embeddings       | embeddings     | Always | Balanced  | yes        | yes        | yes          | no         | yes        | Post
images           | images         | Forms  | Balanced  | no         | no         | no           | yes        | yes        | NamedObject
audio            | audio          | Forms  | Balanced  | no         | no         | no           | no         | yes        | NamedObject
administration   | administration | IfJson | Balanced  | no         | no         | no           | no         | yes        | NamedObject
other            | objects        | Fields | Balanced  | no         | no         | no           | yes        | yes        | NamedObject";
        assert_eq!(table, expected);
    }

    #[test]
    fn all_endpoints_are_listed_in_the_order_of_their_discriminants() {
        for (index, endpoint) in Endpoint::ALL.into_iter().enumerate() {
            assert_eq!(endpoint as usize, index);
        }
        for (index, class) in EndpointClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, index);
        }
    }
}
