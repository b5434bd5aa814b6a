//! Patterns and bounds of the API's fields that the types on the wire do not tell.

use keypool_api::Code;
use utoipa::{
    Modify,
    openapi::{
        OpenApi, RefOr,
        schema::{ArrayItems, Object, Schema, Type},
    },
};

const BASE64: &str =
    "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)?$";

/// Adds patterns and bounds of fields to the description.
pub(super) struct Fields;

impl Modify for Fields {
    fn modify(&self, document: &mut OpenApi) {
        for (name, schema) in document.components.iter_mut().flat_map(|known| &mut known.schemas) {
            describe(schema);
            let RefOr::T(Schema::Object(object)) = schema else { continue };
            match name.as_str() {
                // utoipa cannot read these words, because a macro writes them.
                "Code" => {
                    let words = Code::ALL.iter().map(|code| code.word().into());
                    object.enum_values = Some(words.collect());
                }
                "Base64" => {
                    object.pattern = Some(BASE64.to_owned());
                    "base64".clone_into(&mut object.content_encoding);
                }
                "RevokeRequest" => one_way_to_say_which(object, 2),
                "ReconcileRequest" => one_way_to_say_which(object, 1),
                _ => {}
            }
        }
    }
}

fn describe(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            for (name, field) in &mut object.properties {
                describe_field(name, field);
            }
        }
        RefOr::T(Schema::AllOf(all)) => all.items.iter_mut().for_each(describe),
        RefOr::T(_) | RefOr::Ref(_) => {}
    }
}

fn describe_field(name: &str, field: &mut RefOr<Schema>) {
    match field {
        RefOr::T(Schema::Object(object)) => {
            object.pattern = pattern_of(name).map(str::to_owned);
            (object.min_length, object.max_length) = length_of(name);
        }
        RefOr::T(Schema::Array(array)) => {
            array.min_items = matches!(name, "keypackages" | "targets").then_some(1);
            let ArrayItems::RefOrSchema(item) = &mut array.items else { return };
            let RefOr::T(Schema::Object(item)) = &mut **item else { return };
            item.pattern = pattern_of(name).map(str::to_owned);
            item.maximum = (name == "ciphersuites").then(|| u16::MAX.into());
        }
        RefOr::T(_) | RefOr::Ref(_) => {}
    }
}

/// The pattern of the text in a field of this name, or in its items.
fn pattern_of(field: &str) -> Option<&'static str> {
    Some(match field {
        "user" | "target_user" => "^[A-Za-z0-9._@:+-]{1,128}$",
        "device" | "target_device" => "^[A-Za-z0-9._@:+-]{1,64}$",
        "group_id" => BASE64,
        "keypackage_ref" | "keypackage_refs" | "revoked" => "^([0-9a-f]{2}){16,64}$",
        "credential_hash" | "head" | "digest" => "^[0-9a-f]{64}$",
        "keyid" | "previous_keyid" => "^[A-Za-z0-9_-]{43}$",
        "leaf_keyid" => "^[A-Za-z0-9_-]{43,178}$",
        "proof" => "^[A-Za-z0-9_-]{86}$",
        "pool_health" => "^(healthy|low|critical|empty)$",
        _ => return None,
    })
}

/// How long the text in a field of this name may be, where its pattern does not say.
fn length_of(field: &str) -> (Option<usize>, Option<usize>) {
    match field {
        // 1 to 255 bytes in base64.
        "group_id" => (Some(4), Some(340)),
        _ => (None, None),
    }
}

/// Requires one way to name packages, beside the request's other fields: so many fields in all.
fn one_way_to_say_which(request: &mut Object, fields: usize) {
    (request.min_properties, request.max_properties) = (Some(fields), Some(fields));
    for (name, field) in &mut request.properties {
        match (name.as_str(), field) {
            ("all", RefOr::T(Schema::Object(all))) => all.enum_values = Some(vec![true.into()]),
            ("credential_hash" | "digest", RefOr::T(Schema::Object(hash))) => {
                hash.schema_type = Type::String.into();
            }
            ("keypackage_refs", RefOr::T(Schema::Array(refs))) => {
                refs.schema_type = Type::Array.into();
            }
            _ => {}
        }
    }
}
