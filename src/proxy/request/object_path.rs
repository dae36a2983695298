//! Finds the objects that a path names, such as the file in `/files/{id}/content`.
//!
//! The rule is generic, because APIs grow: the first segment of a path is a collection, and the second one is the id of an
//! object in it. Only three kinds of paths are listed: collections whose name has two segments, paths without objects,
//! and operations that are called like an object.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::ids::ObjectId;

/// First segments that are only a part of a collection's name, as in `/fine_tuning/jobs`.
const PREFIXES: [&str; 5] = ["chat", "chatkit", "fine_tuning", "messages", "realtime"];

/// Collections that have no objects of their own in an account, or whose objects the upstream does not own alone.
const WITHOUT_OBJECTS: [&str; 14] = [
    "audio",
    "chat",
    "completions",
    "embeddings",
    "fine_tuning/alpha",
    "images",
    "messages/count_tokens",
    "models",
    "moderations",
    "organization",
    "organizations",
    "realtime/client_secrets",
    "realtime/sessions",
    "rerank",
];

/// Operations that stand where an id could stand.
const OPERATIONS: [(&str, &str); 6] = [
    ("responses", "compact"),
    ("responses", "input_tokens"),
    ("threads", "runs"),
    ("videos", "characters"),
    ("videos", "edits"),
    ("videos", "extensions"),
];

/// Collections whose objects are changed by a `POST` to the object itself.
const UPDATED_BY_POST: [&str; 8] = [
    "assistants",
    "chat/completions",
    "conversations",
    "evals",
    "files",
    "responses",
    "threads",
    "vector_stores",
];

/// Collections whose objects belong to one group even in an account that several groups use: a request can reach only
/// the objects that it names, and runs no model that Steadfast cannot see.
const SEPARABLE: [&str; 5] = ["containers", "conversations", "files", "uploads", "vector_stores"];

/// A path, split where its collection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct ObjectPath<'a> {
    /// The collection, without a slash before it.
    collection: &'a str,
    /// The segments after the collection: empty, or with a slash before each.
    rest: &'a str,
}

impl<'a> ObjectPath<'a> {
    /// Splits `tail`, the part of a path after `/v1`.
    pub fn new(tail: &'a str) -> Self {
        let path = tail.strip_prefix('/').unwrap_or(tail);
        let first = path.find('/').unwrap_or(path.len());
        let end = match path.get(first + 1..) {
            Some(below) if PREFIXES.contains(&&path[..first]) => first + 1 + below.find('/').unwrap_or(below.len()),
            _ => first,
        };
        let (collection, rest) = path.split_at(end);
        Self { collection, rest }
    }

    /// The id of the object that a request with this method names, still percent-encoded.
    pub fn id(&self, method: &Method) -> Option<&'a str> {
        if WITHOUT_OBJECTS.contains(&self.collection) {
            return None;
        }
        let (id, below) = self.segment_and_rest()?;
        let is_operation = OPERATIONS.contains(&(self.collection, id))
            || *method == Method::POST
                && below.is_empty()
                && !UPDATED_BY_POST.contains(&self.collection)
                && is_word(id);
        (!is_operation).then_some(id)
    }

    /// The objects that a request with this method names, the outermost first: the object itself, and up to two objects
    /// in it, as in `/threads/{id}/runs/{id}/steps/{id}`.
    pub fn objects(&self, method: &Method) -> [Option<ObjectId>; 3] {
        let Some(id) = self.id(method) else { return [None; 3] };
        let mut below = self.rest[1 + id.len()..].split('/').skip(2).step_by(2);
        let mut next = || below.next().filter(|id| !id.is_empty()).map(object_id);
        [Some(object_id(id)), next(), next()]
    }

    /// Whether a request with this method creates an object that can be kept apart from those of other groups, or names
    /// such an object and reaches no other.
    pub fn is_separable(&self, method: &Method) -> bool {
        let is_creation = || self.rest.is_empty() && *method == Method::POST;
        SEPARABLE.contains(&self.collection) && (self.id(method).is_some() || is_creation())
    }

    /// Whether the form (`multipart/form-data`) that a request sends here can name no object: it has the content of a new
    /// one.
    pub fn takes_content(&self) -> bool {
        match self.collection {
            "audio" | "images" => true,
            "files" => self.rest.is_empty(),
            "uploads" => self.rest.ends_with("/parts"),
            _ => false,
        }
    }

    /// Whether no body that is sent here can name an object.
    pub fn refers_to_nothing(&self) -> bool {
        matches!(self.collection, "moderations" | "rerank")
    }

    /// The first segment of the rest, and what follows it.
    fn segment_and_rest(&self) -> Option<(&'a str, &'a str)> {
        let rest = self.rest.strip_prefix('/')?;
        let end = rest.find('/').unwrap_or(rest.len());
        let (segment, below) = rest.split_at(end);
        (!segment.is_empty()).then_some((segment, below))
    }
}

/// Whether a segment is a word such as `client_secrets`, and not an id.
fn is_word(segment: &str) -> bool {
    segment.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// The identity of the object whose id is `encoded`. An upstream reads the decoded id, so its identity does not depend on
/// the encoding.
fn object_id(encoded: &str) -> ObjectId {
    let decoded: Cow<'_, [u8]> = percent_decode_str(encoded).into();
    ObjectId::from_text(&decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id<'a>(method: &Method, tail: &'a str) -> Option<&'a str> {
        ObjectPath::new(tail).id(method)
    }

    #[test]
    fn the_segment_after_the_collection_is_the_id_of_an_object() {
        for (tail, expected) in [
            ("/responses/resp_1", "resp_1"),
            ("/responses/resp_1/cancel", "resp_1"),
            ("/responses/resp_1/input_items", "resp_1"),
            ("/conversations/conv_1/items/msg_1", "conv_1"),
            ("/files/file-1/content", "file-1"),
            ("/vector_stores/vs_1/file_batches/vsfb_1", "vs_1"),
            ("/batches/batch_1/cancel", "batch_1"),
            ("/containers/cntr_1/files/cfile_1/content", "cntr_1"),
            ("/uploads/upload_1/parts", "upload_1"),
            ("/evals/eval_1/runs", "eval_1"),
            ("/assistants/asst_1", "asst_1"),
            ("/threads/thread_1/runs", "thread_1"),
            ("/videos/video_1/remix", "video_1"),
            ("/skills/skill_1/versions/2", "skill_1"),
            ("/agents/agent_1", "agent_1"),
            ("/vaults/vlt_1/credentials", "vlt_1"),
            ("/unheard_of/x-1", "x-1"),
            ("/chat/completions/chatcmpl-1/messages", "chatcmpl-1"),
            ("/fine_tuning/jobs/ftjob-1/cancel", "ftjob-1"),
            ("/fine_tuning/checkpoints/ft:1/permissions", "ft:1"),
            ("/messages/batches/msgbatch_1/results", "msgbatch_1"),
            ("/chatkit/sessions/cksess_1/cancel", "cksess_1"),
            ("/chatkit/threads/cthr_1/items", "cthr_1"),
            ("/realtime/calls/rtc_1/hangup", "rtc_1"),
        ] {
            for method in [Method::GET, Method::POST, Method::DELETE, Method::HEAD] {
                assert_eq!(id(&method, tail), Some(expected), "{method} {tail}");
            }
        }
    }

    #[test]
    fn some_paths_name_no_object() {
        for tail in [
            "/responses",
            "/responses/",
            "/responses/compact",
            "/responses/input_tokens",
            "/files",
            "/files/",
            "/chat/completions",
            "/chat/completions/",
            "/messages",
            "/messages/count_tokens",
            "/messages/batches",
            "/fine_tuning/jobs",
            "/fine_tuning/alpha/graders/run",
            "/realtime/client_secrets",
            "/realtime/sessions",
            "/threads/runs",
            "/models/m-1",
            "/models/org/m-1",
            "/images/generations",
            "/audio/voices/voice_1",
            "/embeddings/x-1",
            "/moderations/x-1",
            "/organization/projects/proj_1",
            "/organizations/api_keys/key_1",
            "/",
            "",
        ] {
            for method in [Method::GET, Method::POST] {
                assert_eq!(id(&method, tail), None, "{method} {tail}");
            }
        }
    }

    #[test]
    fn a_word_after_an_unknown_collection_is_an_operation_if_it_is_posted_to() {
        assert_eq!(id(&Method::POST, "/agents/search_all"), None);
        assert_eq!(id(&Method::GET, "/agents/search_all"), Some("search_all"));
        assert_eq!(id(&Method::POST, "/agents/agent_a/run"), Some("agent_a"));
        assert_eq!(id(&Method::POST, "/conversations/conv_a"), Some("conv_a"));
    }

    #[test]
    fn the_objects_in_an_object_count_as_well() {
        let ids = |list: [&str; 3]| list.map(|id| (!id.is_empty()).then(|| ObjectId::from_text(id.as_bytes())));
        for (tail, expected) in [
            ("/files/f-1/content", ["f-1", "", ""]),
            ("/vector_stores/vs_1/files/f-1/content", ["vs_1", "f-1", ""]),
            ("/threads/t_1/runs/r_1/steps/s_1", ["t_1", "r_1", "s_1"]),
            ("/threads/t_1/runs/r_1/steps/s_1/more/x_1", ["t_1", "r_1", "s_1"]),
            ("/conversations/conv_1/items/", ["conv_1", "", ""]),
            ("/files", ["", "", ""]),
            ("/files/file%2D1", ["file-1", "", ""]),
            ("/files/%66ile-1", ["file-1", "", ""]),
            ("/files/a%2Fb", ["a/b", "", ""]),
        ] {
            let found = ObjectPath::new(tail).objects(&Method::GET);
            assert_eq!(found, ids(expected), "{tail}");
        }
    }

    #[test]
    fn only_named_and_new_objects_of_some_collections_can_be_kept_apart() {
        let methods = [Method::GET, Method::POST, Method::DELETE];
        for (tail, expected) in [
            ("/files", [false, true, false]),
            ("/files/", [false, false, false]),
            ("/files/file-1", [true, true, true]),
            ("/files/file-1/content", [true, true, true]),
            ("/conversations", [false, true, false]),
            ("/conversations/conv_a/items", [true, true, true]),
            ("/vector_stores/vs_1/search", [true, true, true]),
            ("/containers/cntr_1/files/cfile_1", [true, true, true]),
            ("/uploads/upload_1/complete", [true, true, true]),
            ("/batches", [false, false, false]),
            ("/batches/batch_1", [false, false, false]),
            ("/fine_tuning/jobs", [false, false, false]),
            ("/evals/eval_1/runs", [false, false, false]),
            ("/assistants/asst_1", [false, false, false]),
            ("/organization/files/x-1", [false, false, false]),
            ("/Files/file-1", [false, false, false]),
            ("/%66iles/file-1", [false, false, false]),
            ("/files%2Ffile-1/content", [false, false, false]),
        ] {
            let found = methods
                .each_ref()
                .map(|method| ObjectPath::new(tail).is_separable(method));
            assert_eq!(found, expected, "{tail}");
        }
    }
}
