//! Requests that their session's end has overtaken.

use http::{Method, StatusCode};
use mcp_session_layer::RejectionKind;
use tokio::time::sleep;

use crate::{
    inner::scripted,
    node::Node,
    reading::read_to_end,
    support::{
        answers::{NOT_FOUND, id_of, kind_of},
        requests::{delete, on},
        sessions::reference,
        store::TestStore,
        time::{SECOND, set_off},
    },
};

/// How a session ends while a request on it is being answered.
#[derive(Debug, Clone, Copy)]
enum End {
    ByClient,
    ByOperator,
    OnAnotherNode,
}

#[tokio::test(start_paused = true)]
async fn whatever_the_inner_service_makes_of_it_is_404() {
    for end in [End::ByClient, End::ByOperator, End::OnAnotherNode] {
        for store in [TestStore::default(), TestStore::default().remote()] {
            for (method, script) in [
                (Method::POST, "wait, status=500"),
                (Method::POST, "wait, status=400"),
                (Method::GET, "wait, status=404, stray"),
                (Method::PUT, "wait, status=502"),
                (Method::DELETE, "wait, status=409"),
            ] {
                let (node, other) = (Node::new(&store), Node::new(&store));
                let id = node.initialize().await;
                let request = scripted(on(&id, method.as_str()), script);
                let mut call = Box::pin(node.send(request));
                set_off(&mut call).await;
                node.inner.until_waiting(1).await;
                match end {
                    // Its own DELETE is not answered yet.
                    End::ByClient if method == Method::DELETE => continue,
                    End::ByClient => assert_eq!(node.delete(&id).await, 204),
                    End::ByOperator => {
                        let sessions = node.layer.sessions();
                        assert!(sessions.end(&reference(&id)).await.unwrap());
                    }
                    End::OnAnotherNode => {
                        let sessions = other.layer.sessions();
                        assert!(sessions.end(&reference(&id)).await.unwrap());
                        sleep(SECOND).await;
                    }
                }
                node.inner.gate.add_permits(1);
                let answer = call.await;
                assert_eq!(answer.status(), 404, "{end:?} {method} {script}");
                assert_eq!(kind_of(&answer), Some(RejectionKind::Ended));
                assert_eq!(id_of(&answer), None);
                assert!(!answer.headers().contains_key("x-inner"));
                let (_, body) = read_to_end(answer.into_body()).await;
                assert_eq!(body, NOT_FOUND);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_well_goes_out() {
    let node = Node::new(&TestStore::default());
    let id = node.initialize().await;
    let mut call = Box::pin(node.send(scripted(on(&id, "POST"), "wait")));
    set_off(&mut call).await;
    assert_eq!(node.send(delete(&id)).await.status(), 204);
    node.inner.gate.add_permits(1);
    assert_eq!(call.await.status(), StatusCode::OK);
}
