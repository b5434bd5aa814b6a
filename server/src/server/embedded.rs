//! The API in an actix server of somebody's own, beside its other routes.

use std::sync::Weak;

use actix_web::{
    middleware::from_fn,
    web::{self, Data, ServiceConfig},
};
use keypool_api::API_PREFIX;

use super::Server;
use crate::{read_order::keep_order, request_log::observe, routes};

impl Server {
    /// The routes of the API under `/v1`, for an `App` of your own: `App::new().configure(server.routes())`. They are
    /// answered from this server's log, as at its own address, which stays; so do the operator's routes.
    ///
    /// Devices sign the name by which they reach your server: give it in [`Settings::public_names`]. Your server has its
    /// own limits of connections; those of [`Settings`] count at the server's own address alone. Stop your server first:
    /// after [`Server::stop`] its workers would keep the log open, and routes that are made then are none.
    ///
    /// [`Settings`]: crate::Settings
    /// [`Settings::public_names`]: crate::Settings::public_names
    pub fn routes(&self) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static + use<> {
        let state = Weak::clone(&self.state);
        move |config| {
            if let Some(state) = state.upgrade() {
                let api = web::scope(API_PREFIX).app_data(Data::from(state));
                let api = api.wrap(from_fn(keep_order)).wrap(from_fn(observe));
                config.service(api.configure(routes::api));
            }
        }
    }
}
