//! The proxy: bytes arrive late, in order, or not at all, as it was told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tandem_e2e_tikv::Proxy;
use tandem_e2e_tikv::proxy::Way;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(10);
/// How long it is looked whether nothing comes.
const SILENCE: Duration = Duration::from_millis(100);
const DELAY: Duration = Duration::from_millis(60);

/// Sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("it listens");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

struct Line(TcpStream);

impl Line {
    async fn to(proxy: &Proxy) -> Self {
        Self(TcpStream::connect(proxy.address()).await.expect("the proxy accepts"))
    }

    async fn say(&mut self, text: &[u8]) {
        self.0.write_all(text).await.expect("it is open");
    }

    async fn hear(&mut self, length: usize) -> Vec<u8> {
        let mut heard = vec![0; length];
        timeout(LONG, self.0.read_exact(&mut heard)).await.expect("nothing came").expect("it is open");
        heard
    }

    /// Nothing comes, and nobody has hung up.
    async fn is_silent(&mut self) -> bool {
        timeout(SILENCE, self.0.read(&mut [0; 1])).await.is_err()
    }

    async fn is_cut(&mut self) -> bool {
        matches!(timeout(LONG, self.0.read(&mut [0; 1])).await.expect("still open"), Ok(0) | Err(_))
    }
}

#[tokio::test]
async fn bytes_go_there_and_back_and_are_counted() {
    let proxy = Proxy::before(echo().await).unwrap();
    let mut line = Line::to(&proxy).await;
    let long: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let said = long.clone();
    let (mut read, mut write) = line.0.split();
    let mut heard = vec![0; long.len()];
    let (sent, got) = tokio::join!(write.write_all(&said), timeout(LONG, read.read_exact(&mut heard)));
    sent.unwrap();
    got.unwrap().unwrap();
    assert!(heard == long, "bytes changed or their order did");
    let passed = proxy.passed();
    assert_eq!((passed.connections, passed.to_server, passed.to_client), (1, 400_000, 400_000));
}

#[tokio::test]
async fn a_delay_is_added_in_each_direction() {
    let proxy = Proxy::before(echo().await).unwrap();
    let mut line = Line::to(&proxy).await;
    proxy.delay(DELAY);
    let begun = Instant::now();
    line.say(b"ping").await;
    assert_eq!(line.hear(4).await, b"ping");
    assert!(begun.elapsed() >= 2 * DELAY, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_lost_packet_arrives_late_and_in_its_place() {
    let proxy = Proxy::before(echo().await).unwrap();
    let mut line = Line::to(&proxy).await;
    proxy.lose(100);
    let begun = Instant::now();
    line.say(b"a").await;
    line.say(b"b").await;
    assert_eq!(line.hear(2).await, b"ab");
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_a_partition_holds_arrives_when_it_is_mended() {
    let proxy = Proxy::before(echo().await).unwrap();
    let mut line = Line::to(&proxy).await;
    proxy.hold();
    line.say(b"ping").await;
    assert!(line.is_silent().await);
    let mut second = Line::to(&proxy).await;
    second.say(b"pong").await;
    assert!(second.is_silent().await);
    proxy.mend();
    assert_eq!(line.hear(4).await, b"ping");
    assert_eq!(second.hear(4).await, b"pong");
}

#[tokio::test]
async fn a_partition_of_one_way_lets_the_other_through() {
    let proxy = Proxy::before(echo().await).unwrap();
    let mut line = Line::to(&proxy).await;
    proxy.hold_way(Way::ToClient);
    line.say(b"ping").await;
    assert!(line.is_silent().await);
    assert_eq!(proxy.passed().to_server, 4);
    proxy.mend();
    assert_eq!(line.hear(4).await, b"ping");
}

#[tokio::test]
async fn swallowed_bytes_never_arrive_and_mending_cuts() {
    let proxy = Proxy::before(echo().await).unwrap();
    let mut line = Line::to(&proxy).await;
    proxy.swallow_way(Way::ToServer);
    line.say(b"ping").await;
    assert!(line.is_silent().await);
    proxy.mend();
    assert!(line.is_cut().await);
    assert_eq!(proxy.passed().to_server, 0);
}

#[tokio::test]
async fn a_cut_ends_old_connections_and_refusal_new_ones_too() {
    let proxy = Proxy::before(echo().await).unwrap();
    let mut line = Line::to(&proxy).await;
    line.say(b"a").await;
    line.hear(1).await;
    proxy.cut();
    assert!(line.is_cut().await);
    let mut line = Line::to(&proxy).await;
    line.say(b"b").await;
    assert_eq!(line.hear(1).await, b"b");
    proxy.refuse();
    assert!(line.is_cut().await);
    assert!(Line::to(&proxy).await.is_cut().await);
    proxy.mend();
    let mut line = Line::to(&proxy).await;
    line.say(b"c").await;
    assert_eq!(line.hear(1).await, b"c");
}

#[tokio::test]
async fn a_proxy_ends_with_its_handle() {
    let proxy = Proxy::before(echo().await).unwrap();
    let address = proxy.address();
    let mut line = Line::to(&proxy).await;
    drop(proxy);
    assert!(line.is_cut().await);
    assert!(TcpStream::connect(address).await.is_err());
}
