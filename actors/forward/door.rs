//! The leader's side: runs what a follower hands on, and sends the answers as any other door does.

use crate::actors::format::Format;
use crate::actors::freshness::Freshness;
use crate::actors::grpc::{Limits, long, room_of, status, too_large_a_batch};
use crate::actors::messages::{BatchFailure, Output, Statement, Terms};
use crate::actors::pieces::PIECE_BYTES;
use crate::actors::proto::wire::forward_service_server::{ForwardService, ForwardServiceServer};
use crate::actors::proto::wire::{ForwardRequest, ForwardResponse, SqlResponse};
use crate::actors::proto::{self, Message, message};
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use chronos::config::ENVELOPE_BYTES_MAX;
use chronos::error::Result;
use chronos::machine::RequestId;
use chronos::sql::execute::Access;
use std::time::Duration;
use tonic::codegen::Bytes;
use tonic::{Request, Response, Status};

/// The leader's side.
pub struct ForwardDoor {
    router: Router,
    limits: Limits,
}

/// The service that followers call.
pub fn service(router: Router, limits: Limits) -> ForwardServiceServer<ForwardDoor> {
    let bytes_max = message_bytes_max(&limits);
    ForwardServiceServer::new(ForwardDoor { router, limits })
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(bytes_max)
}

/// Bytes of a forwarded statement or its answer.
pub fn message_bytes_max(limits: &Limits) -> usize {
    limits.statement_bytes_max.max(limits.response_bytes_max) + ENVELOPE_BYTES_MAX as usize
}

#[tonic::async_trait]
impl ForwardService for ForwardDoor {
    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<ForwardResponse>, Status> {
        let hold = room_of(&request);
        let request = request.into_inner();
        let terms = self.terms(&request).map_err(|error| status(&error))?;
        if request.sql.is_empty() {
            return Err(Status::invalid_argument("a forwarded request has a statement"));
        }
        let mut statements = Statement::batch(request.sql, hold);
        let done = if request.batch {
            self.router.batch_here(statements, terms).await
        } else {
            let statement = statements.swap_remove(0);
            let one = self.router.execute_here(statement, terms).await;
            one.map(|output| vec![output]).map_err(|error| BatchFailure { statement: 0, error })
        };
        Ok(match done {
            Ok(outputs) => answered(&self.limits, outputs),
            Err(failure) => Response::new(failed(&failure)),
        })
    }
}

/// Why statements failed, or what else is said in the place of their answers.
fn failed(BatchFailure { statement, error }: &BatchFailure) -> ForwardResponse {
    let failed = SqlResponse { error: error.message().to_owned(), ..proto::failure(error) };
    ForwardResponse {
        responses: vec![failed.encode_to_vec().into()],
        failed: *statement as u32,
        kind: error.kind().name().to_owned(),
        hint: error.hint_text().unwrap_or_default().to_owned(),
    }
}

fn encoded(output: &Output) -> Bytes {
    proto::response(output).encode_to_vec().into()
}

/// Statements have run: their answers, with the room that their rows have until they are sent.
fn answered(limits: &Limits, outputs: Vec<Output>) -> Response<ForwardResponse> {
    let bytes = message::batch_len(&outputs);
    if bytes > limits.response_bytes_max + ENVELOPE_BYTES_MAX as usize {
        return Response::new(failed(&too_large_a_batch(limits.response_bytes_max)));
    }
    if bytes > PIECE_BYTES {
        // The responses of this message and those of a batch's answer are the same field.
        return long(bytes, Format::MessageBatch, outputs);
    }
    Response::new(ForwardResponse { responses: outputs.iter().map(encoded).collect(), ..Default::default() })
}

impl ForwardDoor {
    fn terms(&self, request: &ForwardRequest) -> Result<Terms> {
        let wait = Duration::from_millis(request.deadline_ms).min(self.limits.request_timeout);
        let bare = <[u8; 16]>::try_from(request.request_id.as_slice()).map(u128::from_be_bytes);
        let named = match bare {
            Ok(number) => Some(RequestId::Bare(number)),
            Err(_) if request.client_id.is_empty() => None,
            Err(_) => Some(RequestId::Session { client: request.client_id.clone(), sequence: request.sequence }),
        };
        Ok(Terms {
            deadline: Deadline::after(wait),
            whole: None,
            freshness: Freshness::parse(Some(&request.consistency), None)?,
            access: if request.may_write { Access::ReadWrite } else { Access::ReadOnly },
            request: named,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::messages::OutputColumn;
    use crate::actors::rows::held_bytes;
    use crate::actors::transit::Transit;
    use chronos::sql::batch::{Batch, Column, Values};
    use chronos::sql::value::DataType;
    use std::sync::Arc;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_handed_back_has_its_room_until_it_is_sent() {
        let limits = Limits {
            statement_bytes_max: MIB,
            response_bytes_max: MIB,
            in_flight_bytes_max: 4 * MIB,
            request_timeout: Duration::from_secs(1),
            connections: 1,
            stall_max: Duration::from_secs(1),
        };
        let transit: Arc<Transit> = limits.transit();
        let rows = 50_000;
        let batch = Batch::new(vec![Arc::new(Column::new(Values::Int(vec![7; rows])))], rows);
        let columns = vec![OutputColumn { name: "n".into(), data_type: DataType::Int }];
        let mut hold = transit.answer();
        hold.reach(held_bytes(&batch)).unwrap();
        let response = answered(&limits, vec![Output { columns, batches: vec![batch], affected: 0, hold }]);
        assert_eq!(transit.used(), 8 * rows);
        assert!(response.get_ref().responses.is_empty(), "it leaves in pieces");
        drop(response);
        assert_eq!(transit.used(), 0);
    }
}
