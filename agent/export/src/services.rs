//! What is served, whatever the way to it.

use super::answers::{AnswerService, AnswersSource};
use super::hub::Hub;
use super::service::{Service, StatusSource};
use keytrail_proto::v1::baseline_service_server::BaselineServiceServer;
use keytrail_proto::v1::event_service_server::EventServiceServer;
use keytrail_proto::v1::history_service_server::HistoryServiceServer;
use keytrail_proto::v1::inventory_service_server::InventoryServiceServer;
use std::fmt;
use std::sync::Arc;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

/// Requests are a filter at most.
const MAX_REQUEST: usize = 256 << 10;

/// Events, state, and answers about the past.
#[derive(Clone)]
pub struct Services {
    pub(super) hub: Arc<Hub>,
    status: StatusSource,
    answers: Option<AnswersSource>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").finish_non_exhaustive()
    }
}

impl Services {
    /// Events of `hub`; `status` says what is seen, `answers` what is remembered.
    pub fn new(hub: Arc<Hub>, status: StatusSource, answers: Option<AnswersSource>) -> Services {
        Services {
            hub,
            status,
            answers,
        }
    }

    /// All services, health and reflection among them, and by what health is reported.
    ///
    /// # Errors
    /// The reflection service refuses its own descriptors.
    pub(super) async fn routes(
        &self,
    ) -> Result<(Routes, HealthReporter), tonic_reflection::server::Error> {
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(keytrail_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<EventServiceServer<Service>>().await;
        let service = EventServiceServer::new(Service {
            hub: self.hub.clone(),
            status: self.status.clone(),
            answers: self.answers.clone(),
        })
        .max_decoding_message_size(MAX_REQUEST);
        let mut routes = Routes::new(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .add_service(service);
        if let Some(answers) = self.answers.clone().map(AnswerService::new) {
            routes = routes
                .add_service(
                    InventoryServiceServer::new(answers.clone())
                        .max_decoding_message_size(MAX_REQUEST),
                )
                .add_service(
                    BaselineServiceServer::new(answers.clone())
                        .max_decoding_message_size(MAX_REQUEST),
                )
                .add_service(
                    HistoryServiceServer::new(answers).max_decoding_message_size(MAX_REQUEST),
                );
        }
        Ok((routes, health))
    }

    /// Clients are told that there is nothing to ask any more.
    pub(super) async fn end(health: &HealthReporter) {
        health
            .set_not_serving::<EventServiceServer<Service>>()
            .await;
    }
}
