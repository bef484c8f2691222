//! Requests to the admin port of a pod, through a port that the API server and the kubelet forward.
//!
//! Not through the proxy of the API server: the design record on the plug-in has the reasons.

use std::time::Duration;

use http::request::Request;
use http::response::Parts;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use kube::api::Portforwarder;

use super::Cluster;
use super::error::{Asked, Error, root_cause};

/// Where the pods of a runtime have their admin port.
const ADMIN_PORT: u16 = 9090;
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A kubelet that cannot reach the port says so after it has closed the stream: how long that may take.
const REASON_TIMEOUT: Duration = Duration::from_millis(500);

/// A way to the admin port of one pod. Good for any number of requests, one after the other.
pub(crate) struct Forward {
    pod: String,
    forwarder: Portforwarder,
    sender: SendRequest<Full<Bytes>>,
}

impl Forward {
    /// Opens a way to `pod`. Nothing is sent to the pod yet.
    pub(crate) async fn open(cluster: &Cluster, pod: &str) -> Result<Self, Error> {
        let asked = Asked::of_pod("get", "pods/portforward", pod);
        let mut forwarder = cluster.call(&asked, cluster.pod_api().portforward(pod, &[ADMIN_PORT])).await?;
        let broken = |why: String| Error::Pod { pod: pod.to_owned(), why };
        let stream =
            forwarder.take_stream(ADMIN_PORT).ok_or_else(|| broken("the port was not forwarded".to_owned()))?;
        let opened = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = opened.map_err(|error| broken(root_cause(&error)))?;
        // It ends with the sender; how it ends is told to who waits for an answer.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { pod: pod.to_owned(), forwarder, sender })
    }

    /// Sends a request, whose URI is a path, and waits for the whole answer.
    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<(Parts, Bytes), Error> {
        let sender = &mut self.sender;
        let exchange = async move {
            sender.ready().await.map_err(|error| root_cause(&error))?;
            let response = sender.send_request(request).await.map_err(|error| root_cause(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| root_cause(&*error))?;
            Ok::<_, String>((parts, body.to_bytes()))
        };
        match tokio::time::timeout(within, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(Error::Pod { pod: self.pod.clone(), why: self.reason().await.unwrap_or(why) }),
            Err(_) => {
                Err(Error::Pod { pod: self.pod.clone(), why: format!("no answer within {} s", within.as_secs()) })
            }
        }
    }

    /// What the kubelet has to say about a way that broke.
    async fn reason(&mut self) -> Option<String> {
        let told = self.forwarder.take_error(ADMIN_PORT)?;
        tokio::time::timeout(REASON_TIMEOUT, told).await.ok()?.map(|text| text.trim().to_owned())
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}
