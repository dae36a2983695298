use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt as _, net::UnixStream};

use super::*;
use crate::wire::{
    body::{memory::pool::MemoryLimits, pace::MinBodyRate, request::RequestBody},
    http1::server::connection::{ClientConnection, Http1RequestBody},
    server::{activity::Activity, socket::ClientSocket},
    transport::Transport,
};

const MAX_BODY: usize = 40 << 10;
const IDLE: Duration = Duration::from_secs(3600);

/// A body of `length` bytes that is arriving.
struct ArrivingUpload<'a> {
    intake: Intake,
    reservation: BodyReservation<'a>,
    client: UnixStream,
}

fn memory(all: usize, share: usize) -> Arc<BodyMemory> {
    BodyMemory::new(MemoryLimits { all, share })
}

impl<'a> ArrivingUpload<'a> {
    fn new(memory: &'a Arc<BodyMemory>, account: &Arc<BodyAccount>, length: usize) -> Self {
        let (near, client) = UnixStream::pair().expect("a pair");
        let socket = ClientSocket::new(Transport::Unix(near), IDLE, Activity::accepted());
        let connection = Arc::new(Mutex::new(ClientConnection::new(socket)));
        let framing = Framing::Length(length as u64);
        connection.lock().begin_request(framing);
        let body = Http1RequestBody::new(&connection, framing);
        let body = RequestBody::from_http1(body, framing);
        let intake = Intake::new(body, MAX_BODY as u64, IDLE, MinBodyRate::OFF);
        Self {
            reservation: BodyReservation::new(memory, account.clone(), &intake, MAX_BODY as u64),
            intake,
            client,
        }
    }

    /// Sends `bytes` more bytes, and reads all that has been sent.
    async fn send(&mut self, bytes: usize) -> Result<(), BodyError> {
        let end = self.intake.received() + bytes as u64;
        self.client.write_all(&vec![b'x'; bytes]).await.expect("written");
        while self.intake.received() < end {
            self.read().await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), BodyError> {
        let piece = self.reservation.read(&mut self.intake).await;
        piece.expect("the body is not complete").map(drop)
    }
}

#[tokio::test]
async fn memory_is_reserved_in_steps_up_to_the_limit() {
    let memory = memory(1 << 20, 1 << 20);
    let mut upload = ArrivingUpload::new(&memory, &Arc::default(), MAX_BODY);
    assert_eq!(memory.held(), 0, "a length reserves nothing");
    for (length, held) in [
        (1, STEP),
        (STEP, STEP),
        (STEP + 1, 2 * STEP),
        (2 * STEP + 1, MAX_BODY),
        (MAX_BODY, MAX_BODY),
    ] {
        let received = upload.intake.received() as usize;
        upload.send(length - received).await.expect("enough memory");
        assert_eq!(memory.held(), held, "{length}");
    }
    let permit = upload
        .reservation
        .settle(&upload.intake)
        .await
        .expect("no other caller");
    assert_eq!((permit.bytes(), memory.held()), (MAX_BODY, MAX_BODY));
    drop(permit);
    assert_eq!(memory.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_waits_for_memory_that_others_hold_and_is_refused_when_the_wait_is_over() {
    let memory = memory(STEP, STEP);
    let account = Arc::default();
    let mut held = ArrivingUpload::new(&memory, &account, 2 * STEP);
    held.send(1).await.expect("enough memory");
    let mut waiting = ArrivingUpload::new(&memory, &account, STEP);
    assert_eq!(waiting.send(1).await, Err(BodyError::NoMemory(MemoryRefusal::Full)));
    let mut waiting = ArrivingUpload::new(&memory, &account, STEP);
    let release = async {
        tokio::time::sleep(WAIT / 4).await;
        drop(held);
    };
    let (sent, ()) = tokio::join!(waiting.send(1), release);
    assert_eq!(sent, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn an_arriving_body_over_the_share_gives_way() {
    let memory = memory(2 * STEP, STEP);
    let (alice, bob) = (Arc::default(), Arc::default());
    let mut holders = [
        ArrivingUpload::new(&memory, &alice, STEP),
        ArrivingUpload::new(&memory, &alice, STEP),
    ];
    for holder in &mut holders {
        holder.send(1).await.expect("enough memory");
    }
    let [mut first, mut second] = holders;
    let mut wanting = ArrivingUpload::new(&memory, &bob, STEP);
    let reclaimed = BodyError::NoMemory(MemoryRefusal::Reclaimed);
    let begun = Instant::now();
    let wanted = async {
        // The other bodies wait for their clients.
        tokio::time::sleep(Duration::from_millis(10)).await;
        wanting.send(1).await
    };
    let holding = async {
        let read = tokio::select! {
            read = first.read() => read,
            read = second.read() => read,
        };
        drop((first, second));
        read
    };
    let (sent, given_way) = tokio::join!(wanted, holding);
    assert_eq!((sent, given_way), (Ok(()), Err(reclaimed)));
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!((memory.held(), alice.held(), bob.held()), (STEP, 0, STEP));
}

#[tokio::test(start_paused = true)]
async fn a_fast_body_is_not_starved_by_slow_ones_of_other_callers() {
    let memory = memory(2 * STEP, STEP);
    let mut slow: Vec<ArrivingUpload<'_>> = Vec::new();
    for _ in 0..2 {
        let mut upload = ArrivingUpload::new(&memory, &Arc::default(), STEP);
        upload.send(1).await.expect("enough memory");
        slow.push(upload);
    }
    let mut fast = ArrivingUpload::new(&memory, &Arc::default(), STEP);
    let (mut second, mut first) = (slow.pop().expect("two"), slow.pop().expect("two"));
    let begun = Instant::now();
    let read = async {
        tokio::select! {
            read = first.read() => { drop(first); read }
            read = second.read() => { drop(second); read }
        }
    };
    let (sent, given_way) = tokio::join!(fast.send(1), read);
    assert_eq!(sent, Ok(()));
    assert_eq!(given_way, Err(BodyError::NoMemory(MemoryRefusal::Reclaimed)));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn complete_bodies_of_a_caller_over_its_share_leave_a_share_to_others() {
    let memory = memory(4 * STEP, STEP);
    let (alice, bob) = (Arc::default(), Arc::default());
    let complete = async |account: &Arc<BodyAccount>| {
        let mut upload = ArrivingUpload::new(&memory, account, STEP);
        upload.send(STEP).await.expect("enough memory");
        upload.reservation.settle(&upload.intake).await
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(complete(&alice).await.expect("a share stays free"));
    }
    let refused = complete(&alice).await.err();
    assert_eq!(refused, Some(BodyError::NoMemory(MemoryRefusal::ShareFull)));
    held.push(complete(&bob).await.expect("within the share"));
    held.clear();
    assert_eq!(memory.held(), 0);
    complete(&alice).await.expect("free memory");
}
