//! The parts that operations of the API share: refusals, failures, and the header of each POST.

use utoipa::{
    Modify,
    openapi::{
        Content, OpenApi, Ref, RefOr, Required, ResponseBuilder,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
        schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type},
        server::Server,
    },
};

use crate::problem::PROBLEM_JSON;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// The probes list each of their answers, and have no version.
const PROBES: [&str; 2] = ["/livez", "/readyz"];
/// The addresses that take nothing from the caller, so that nothing is refused there.
const NEVER_REFUSED: [&str; 2] = ["/ledger/key", "/ledger/checkpoint"];

/// Adds to each operation the parts that it shares with the others and does not describe otherwise.
pub(super) struct SharedParts;

impl Modify for SharedParts {
    fn modify(&self, document: &mut OpenApi) {
        for (path, item) in &mut document.paths.paths {
            let PathItem { get, post, .. } = item;
            if PROBES.contains(&path.as_str()) {
                if let Some(probe) = get {
                    probe.servers = Some(vec![Server::new("/")]);
                }
                continue;
            }
            for operation in [get, &mut *post].into_iter().flatten() {
                add_problem(operation, "5XX", "Failed");
                if !NEVER_REFUSED.contains(&path.as_str()) {
                    add_problem(operation, "4XX", "Refused");
                }
            }
            post.iter_mut().for_each(add_idempotency_key);
        }
    }
}

fn add_problem(operation: &mut Operation, status: &str, description: &str) {
    let problem = || {
        let schema = Ref::from_schema_name("Problem");
        let content = Content::new(Some(schema));
        ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build()
    };
    let answers = &mut operation.responses.responses;
    answers.entry(status.to_owned()).or_insert_with(|| problem().into());
}

fn add_idempotency_key(operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_default();
    let is_it = |known: &RefOr<_>| matches!(known, RefOr::T(Parameter { name, .. }) if name == IDEMPOTENCY_KEY);
    if parameters.iter().any(is_it) {
        return;
    }
    let uuid = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)));
    let header = ParameterBuilder::new()
        .name(IDEMPOTENCY_KEY)
        .parameter_in(ParameterIn::Header)
        .required(Required::True)
        .description(Some("A new UUID for each new request"))
        .schema(Some(uuid));
    parameters.push(header.build().into());
}
