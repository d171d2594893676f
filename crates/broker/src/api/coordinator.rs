//! FindCoordinator: always this broker, for groups and transactional ids. Share groups are not offered, and it says so.

use kafka_protocol::{
    error::ResponseError,
    messages::{FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator},
};

use super::{Session, text};
use crate::broker::Broker;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const MANY_FIRST: i16 = 4;

pub(super) async fn answer(
    broker: &Broker,
    session: &Session,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let refusal = (!matches!(request.key_type, GROUP | TRANSACTION)).then(|| {
        let why = "only groups and transactional ids have a coordinator here: share groups are not supported";
        (ResponseError::InvalidRequest.code(), text(why))
    });
    let (host, port) = (text(session.advertised.host.clone()), i32::from(session.advertised.port));
    let node = broker.inner.options.node_id;
    if version < MANY_FIRST {
        let response = FindCoordinatorResponse::default().with_error_message(None);
        return match refusal {
            Some((code, why)) => response.with_error_code(code).with_error_message(Some(why)).with_node_id((-1).into()),
            None => response.with_node_id(node.into()).with_host(host).with_port(port),
        };
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        let one = Coordinator::default().with_key(key).with_error_message(None);
        match &refusal {
            Some((code, why)) => {
                one.with_error_code(*code).with_error_message(Some(why.clone())).with_node_id((-1).into()).with_port(-1)
            }
            None => one.with_node_id(node.into()).with_host(host.clone()).with_port(port),
        }
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}
