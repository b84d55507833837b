//! `keytrail.v1.InventoryService` and `keytrail.v1.HistoryService`: questions about the past, answered by whoever
//! remembers.

use keytrail_proto::v1::baseline_service_server::BaselineService;
use keytrail_proto::v1::history_service_server::HistoryService;
use keytrail_proto::v1::inventory_service_server::InventoryService;
use keytrail_proto::v1::{
    AddDecoyRequest, AddDecoyResponse, ListBaselinesRequest, ListBaselinesResponse,
    ListDecoysRequest, ListDecoysResponse, RemoveDecoyRequest, RemoveDecoyResponse,
    UpdateBaselineRequest, UpdateBaselineResponse,
};
use keytrail_proto::v1::{
    CheckUseRequest, CheckUseResponse, Event, EventId, Gap, GetCredentialRequest,
    GetCredentialResponse, GetGraphRequest, GetGraphResponse, GetHistoryStatusRequest,
    GetHistoryStatusResponse, ListCoverageRequest, ListCoverageResponse, ListCredentialsRequest,
    ListCredentialsResponse, ListFindingsRequest, ListFindingsResponse, ListUsesRequest,
    ListUsesResponse,
};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

/// Questions that are worked on at a time: each reads from the disk and computes.
const AT_ONCE: usize = 4;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// The question makes no sense.
    Bad(String),
    NotFound(String),
    /// What is remembered cannot be read.
    Unavailable(String),
}

impl From<AnswerError> for Status {
    fn from(e: AnswerError) -> Status {
        match e {
            AnswerError::Bad(sentence) => Status::invalid_argument(sentence),
            AnswerError::NotFound(sentence) => Status::not_found(sentence),
            AnswerError::Unavailable(sentence) => Status::unavailable(sentence),
        }
    }
}

/// A part of what comes after an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Oldest first.
    pub events: Vec<Arc<Event>>,
    /// What was there and is not any more, before the first of them.
    pub gap: Option<Gap>,
    /// There may be more after the last.
    pub more: bool,
    /// Epoch and number of the last event that was written: everything up to it was inspected.
    pub written: (u64, u64),
}

type Answer<T> = Result<T, AnswerError>;

/// Who remembers. Each call may take its time: it runs off the async threads.
pub trait Answers: Send + Sync {
    fn list_credentials(&self, ask: &ListCredentialsRequest) -> Answer<ListCredentialsResponse>;
    fn get_credential(&self, ask: &GetCredentialRequest) -> Answer<GetCredentialResponse>;
    fn history_status(&self) -> Answer<GetHistoryStatusResponse>;
    fn check_use(&self, ask: &CheckUseRequest) -> Answer<CheckUseResponse>;
    fn list_uses(&self, ask: &ListUsesRequest) -> Answer<ListUsesResponse>;
    fn list_coverage(&self, ask: &ListCoverageRequest) -> Answer<ListCoverageResponse>;
    fn list_findings(&self, ask: &ListFindingsRequest) -> Answer<ListFindingsResponse>;
    fn graph(&self, ask: &GetGraphRequest) -> Answer<GetGraphResponse>;
    fn events_after(&self, after: &EventId) -> Answer<Page>;
    fn list_baselines(&self, ask: &ListBaselinesRequest) -> Answer<ListBaselinesResponse>;
    fn update_baseline(&self, ask: &UpdateBaselineRequest) -> Answer<UpdateBaselineResponse>;
    fn list_decoys(&self) -> Answer<ListDecoysResponse>;
    fn add_decoy(&self, ask: &AddDecoyRequest) -> Answer<AddDecoyResponse>;
    fn remove_decoy(&self, ask: &RemoveDecoyRequest) -> Answer<RemoveDecoyResponse>;
}

pub type AnswersSource = Arc<dyn Answers>;

#[derive(Clone)]
pub(super) struct AnswerService {
    answers: AnswersSource,
    turns: Arc<Semaphore>,
}

impl AnswerService {
    pub fn new(answers: AnswersSource) -> AnswerService {
        AnswerService {
            answers,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    async fn ask<Q, A>(
        &self,
        request: Request<Q>,
        question: impl FnOnce(&dyn Answers, &Q) -> Answer<A> + Send + 'static,
    ) -> Result<Response<A>, Status>
    where
        Q: Send + 'static,
        A: Send + 'static,
    {
        let turn = self.turns.clone().acquire_owned().await;
        let answers = self.answers.clone();
        let request = request.into_inner();
        let answer = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            question(&*answers, &request)
        })
        .await
        .map_err(|_| Status::internal("this question could not be answered"))?;
        Ok(Response::new(answer?))
    }
}

#[tonic::async_trait]
impl InventoryService for AnswerService {
    async fn list_credentials(
        &self,
        request: Request<ListCredentialsRequest>,
    ) -> Result<Response<ListCredentialsResponse>, Status> {
        self.ask(request, |a, q| a.list_credentials(q)).await
    }

    async fn get_credential(
        &self,
        request: Request<GetCredentialRequest>,
    ) -> Result<Response<GetCredentialResponse>, Status> {
        self.ask(request, |a, q| a.get_credential(q)).await
    }
}

#[tonic::async_trait]
impl HistoryService for AnswerService {
    async fn get_history_status(
        &self,
        request: Request<GetHistoryStatusRequest>,
    ) -> Result<Response<GetHistoryStatusResponse>, Status> {
        self.ask(request, |a, _| a.history_status()).await
    }

    async fn check_use(
        &self,
        request: Request<CheckUseRequest>,
    ) -> Result<Response<CheckUseResponse>, Status> {
        self.ask(request, |a, q| a.check_use(q)).await
    }

    async fn list_uses(
        &self,
        request: Request<ListUsesRequest>,
    ) -> Result<Response<ListUsesResponse>, Status> {
        self.ask(request, |a, q| a.list_uses(q)).await
    }

    async fn list_coverage(
        &self,
        request: Request<ListCoverageRequest>,
    ) -> Result<Response<ListCoverageResponse>, Status> {
        self.ask(request, |a, q| a.list_coverage(q)).await
    }

    async fn list_findings(
        &self,
        request: Request<ListFindingsRequest>,
    ) -> Result<Response<ListFindingsResponse>, Status> {
        self.ask(request, |a, q| a.list_findings(q)).await
    }

    async fn get_graph(
        &self,
        request: Request<GetGraphRequest>,
    ) -> Result<Response<GetGraphResponse>, Status> {
        self.ask(request, |a, q| a.graph(q)).await
    }
}

#[tonic::async_trait]
impl BaselineService for AnswerService {
    async fn list_baselines(
        &self,
        request: Request<ListBaselinesRequest>,
    ) -> Result<Response<ListBaselinesResponse>, Status> {
        self.ask(request, |a, q| a.list_baselines(q)).await
    }

    async fn update_baseline(
        &self,
        request: Request<UpdateBaselineRequest>,
    ) -> Result<Response<UpdateBaselineResponse>, Status> {
        self.ask(request, |a, q| a.update_baseline(q)).await
    }

    async fn list_decoys(
        &self,
        request: Request<ListDecoysRequest>,
    ) -> Result<Response<ListDecoysResponse>, Status> {
        self.ask(request, |a, _| a.list_decoys()).await
    }

    async fn add_decoy(
        &self,
        request: Request<AddDecoyRequest>,
    ) -> Result<Response<AddDecoyResponse>, Status> {
        self.ask(request, |a, q| a.add_decoy(q)).await
    }

    async fn remove_decoy(
        &self,
        request: Request<RemoveDecoyRequest>,
    ) -> Result<Response<RemoveDecoyResponse>, Status> {
        self.ask(request, |a, q| a.remove_decoy(q)).await
    }
}
