//! The actions of the operator's page.

use keypool_operator_page::Action;

use crate::{
    problem::Failure,
    routes::{names::release_name, operator::remove},
    state::State,
};

/// Carries out an action, and says how it went.
pub(crate) async fn carry_out(state: &State, action: &Action) -> Result<String, Failure> {
    match action {
        Action::RemoveDevice { device } => {
            let position = remove(state, device).await?;
            Ok(format!("{device} is removed, as record {position} of the log says"))
        }
        Action::ReleaseName { user } => {
            let devices = release_name(state, user).await?;
            let devices: Vec<String> = devices.iter().map(ToString::to_string).collect();
            Ok(format!("the name {user} is free, and removed are {}", devices.join(", ")))
        }
    }
}
