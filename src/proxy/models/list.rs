//! Lists of models: read from an upstream, renamed, and merged into one.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{config::ModelGlobs, ids::UpstreamId, state::Upstream};

/// The lists of several upstreams, in the order of the configuration.
pub(super) type ModelLists = Arc<[(UpstreamId, Vec<Model>)]>;

/// One model as its upstream describes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Model {
    pub id: String,
    /// All other fields of the description.
    #[serde(flatten)]
    description: Map<String, Value>,
}

#[derive(Deserialize)]
struct UpstreamModelList {
    data: Vec<Model>,
}

#[derive(Serialize)]
struct MergedModelList<'a> {
    object: &'static str,
    data: &'a [&'a Model],
}

/// Reads an upstream's list.
///
/// # Errors
/// Says at which place the list is invalid. The parser's own message is not passed on, because it may quote the list.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Model>, String> {
    let parsed = serde_json::from_slice::<UpstreamModelList>(body);
    parsed.map(|list| list.data).map_err(|error| {
        let problem = if error.is_data() {
            "does not have the format of OpenAI's"
        } else {
            "is not valid JSON"
        };
        let (line, column) = (error.line(), error.column());
        format!("its list of models {problem} (line {line}, column {column})")
    })
}

/// The models of an upstream's list that callers may name, under the names that callers use.
pub(super) fn named_for_callers(upstream: &Upstream, listed: Vec<Model>) -> Vec<Model> {
    let renamed = upstream.renames.iter().map(|(name, upstream_name)| {
        let listed = listed.iter().find(|model| *json(&model.id) == **upstream_name);
        Model {
            id: name.to_string(),
            description: listed.map_or_else(default_description, |model| model.description.clone()),
        }
    });
    let mut models: Vec<Model> = renamed.collect();
    models.sort_by(|one, other| one.id.cmp(&other.id));
    let is_served = |model: &Model| upstream.models.matches(&model.id) && !upstream.renames.contains_key(&*model.id);
    models.extend(listed.into_iter().filter(is_served));
    models
}

/// The fields that SDKs expect of a model. They replace the description of a model that its upstream does not list.
/// Azure, for example, does not list deployments.
fn default_description() -> Map<String, Value> {
    let fields = [
        ("object", Value::from("model")),
        ("created", Value::from(0)),
        ("owned_by", Value::from("upstream")),
    ];
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// The models that match `allowed`, each id once. If several upstreams describe a model, the first description is used.
pub(super) fn merge<'a>(models: impl Iterator<Item = &'a Model>, allowed: &ModelGlobs) -> Vec<&'a Model> {
    let mut seen = HashSet::new();
    models
        .filter(|model| allowed.matches(&model.id) && seen.insert(model.id.as_str()))
        .collect()
}

/// The list of these models in JSON.
pub(super) fn list_json(models: &[&Model]) -> Bytes {
    json(&MergedModelList {
        object: "list",
        data: models,
    })
}

/// A value in JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Bytes {
    let text = serde_json::to_vec(value).expect("strings, and values that were read from JSON, can be written as JSON");
    text.into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::proxy::request::kit::snapshot;

    /// Models with these ids.
    pub(in crate::proxy::models) fn models(ids: &[&str]) -> Vec<Model> {
        let description = Map::from_iter([("object".to_owned(), Value::from("model"))]);
        let model = |id: &&str| Model {
            id: (*id).to_owned(),
            description: description.clone(),
        };
        ids.iter().map(model).collect()
    }

    fn ids<'a>(models: impl IntoIterator<Item = &'a Model>) -> Vec<&'a str> {
        models.into_iter().map(|model| &*model.id).collect()
    }

    #[test]
    fn a_list_is_parsed_with_all_its_fields() {
        let body = br#"{"object": "list", "data": [{"id": "m", "owned_by": "x", "limits": {"rpm": 1.50}}], "more": 1}"#;
        let list = parse(body).expect("a valid list");
        assert_eq!(&*json(&list), br#"[{"id":"m","limits":{"rpm":1.5},"owned_by":"x"}]"#);
    }

    #[test]
    fn an_invalid_list_is_described_without_quoting_it() {
        for (body, expected) in [
            (&b"<html>secret"[..], "is not valid JSON (line 1, column 1)"),
            (b"{\"data\": [", "is not valid JSON (line 1, column 10)"),
            (b"{\"models\": \"secret\"}", "does not have the format of OpenAI's"),
            (
                b"{\"data\": [{\"name\": \"secret\"}]}",
                "does not have the format of OpenAI's",
            ),
        ] {
            let problem = parse(body).expect_err("an invalid list");
            assert!(problem.contains(expected) && !problem.contains("secret"), "{problem}");
        }
    }

    /// The models that callers may name of an upstream with this `models` setting.
    fn named_with(setting: &str, listed: &[&str]) -> Vec<Model> {
        let snapshot = snapshot(&format!(
            r#"
            [[upstream]]
            name = "a"
            base_url = "https://a.example/v1"
            api_key = "env:KEY"
            models = {setting}
            "#
        ));
        named_for_callers(&snapshot.upstreams()[0], models(listed))
    }

    #[test]
    fn only_served_models_are_named() {
        let listed = ["gpt-5.2", "o4", "gpt-5-mini"];
        assert_eq!(ids(&named_with("[]", &listed)), listed);
        assert_eq!(ids(&named_with(r#"["gpt-5*"]"#, &listed)), ["gpt-5.2", "gpt-5-mini"]);
    }

    #[test]
    fn renamed_models_have_the_names_that_callers_use() {
        let setting = r#"{ "gpt-5.2" = "deployment", "gpt-5.1" = "unlisted" }"#;
        let named = named_with(setting, &["gpt-5.2", "o4", "deployment"]);
        let descriptions: Vec<Bytes> = named.iter().map(json).collect();
        let expected = [
            r#"{"id":"gpt-5.1","created":0,"object":"model","owned_by":"upstream"}"#,
            r#"{"id":"gpt-5.2","object":"model"}"#,
        ];
        assert_eq!(descriptions, expected);
    }

    #[test]
    fn the_first_description_of_a_model_is_used() {
        let (mut first, second) = (models(&["a", "b"]), models(&["b", "c"]));
        first[1].description.insert("owned_by".to_owned(), Value::from("first"));
        let merged = merge(first.iter().chain(&second), &ModelGlobs::default());
        assert_eq!(ids(merged.iter().copied()), ["a", "b", "c"]);
        assert!(std::ptr::eq(merged[1], &first[1]));
    }

    #[test]
    fn only_allowed_models_are_merged() {
        let listed = models(&["gpt-5", "o4", "gpt-5-mini"]);
        let merged = merge(listed.iter(), &ModelGlobs::new(["gpt-5*"]));
        assert_eq!(ids(merged), ["gpt-5", "gpt-5-mini"]);
    }
}
