//! Bytes that no client sends: the broker answers with an error code or closes, and serves everyone else as before.

use anyhow::{Result, ensure};
use millstream_e2e::{
    broker::{Broker, Options},
    clients,
    wire::{API_VERSIONS, RawConnection, Reply, check_alive, request, with_length},
};

/// ApiVersions' answer to a version it does not know: error 35 in a version 0 body.
const UNSUPPORTED_VERSION: [u8; 2] = [0, 35];

/// Sends bytes on a new connection, after which the broker must close it.
fn check_closes(broker: &Broker, what: &str, bytes: &[u8]) -> Result<()> {
    let mut connection = RawConnection::open(broker)?;
    connection.send(bytes);
    let reply = connection.reply()?;
    ensure!(reply == Reply::Closed, "{what}: the broker answered {reply:?}");
    check_alive(broker)
}

#[test]
fn frames_of_impossible_lengths_close_the_connection() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    for length in [i32::MAX, -1, i32::MIN, 0, 1, 7] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend([0xff; 64]);
        check_closes(&broker, &format!("length {length}"), &bytes)?;
    }
    Ok(())
}

#[test]
fn other_protocols_close_the_connection() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    check_closes(&broker, "HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    check_closes(&broker, "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 client hello")?;
    check_closes(&broker, "SSH", b"SSH-2.0-OpenSSH_9.2\r\n")
}

#[test]
fn unknown_keys_and_versions_close_the_connection() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    for key in [9999, -1, i16::MIN] {
        check_closes(&broker, &format!("key {key}"), &request(key, 0, 1, b""))?;
    }
    check_closes(&broker, "Metadata version 99", &request(3, 99, 1, &[0; 16]))?;
    check_closes(&broker, "Metadata version -1", &request(3, -1, 1, &[0; 16]))
}

#[test]
fn unknown_version_of_api_versions_is_answered_so_that_clients_step_down() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    let mut connection = RawConnection::open(&broker)?;
    connection.send(&request(API_VERSIONS, 99, 7, &[0; 8]));
    let Reply::Frame(frame) = connection.reply()? else {
        anyhow::bail!("the broker closed instead")
    };
    ensure!(
        frame.get(..4) == Some(&[0, 0, 0, 7]) && frame.get(4..6) == Some(&UNSUPPORTED_VERSION),
        "{frame:?}"
    );
    connection.send(&request(API_VERSIONS, 0, 8, b""));
    ensure!(
        matches!(connection.reply()?, Reply::Frame(_)),
        "the connection goes on with a version that is known"
    );
    Ok(())
}

#[test]
fn bodies_of_garbage_close_the_connection() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    let mut state = 0x9e37_79b9_u32;
    for key in 0..=92 {
        let garbage: Vec<u8> = (0..200)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let mut connection = RawConnection::open(&broker)?;
        connection.send(&request(key, key % 4, 1, &garbage));
        connection.end()?;
        // An error response is as good as a closed connection; silence is not.
        while connection.reply()? != Reply::Closed {}
    }
    check_alive(&broker)
}

#[test]
fn counts_beyond_the_frame_reserve_no_memory() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    // Metadata version 1 with 2,147,483,647 topics, and Produce version 3 with as many.
    check_closes(&broker, "topics beyond the frame", &request(3, 1, 1, &i32::MAX.to_be_bytes()))?;
    let mut produce = vec![0xff, 0xff, 0, 1, 0, 0, 0x75, 0x30];
    produce.extend(i32::MAX.to_be_bytes());
    check_closes(&broker, "produce topics beyond the frame", &request(0, 3, 1, &produce))
}

#[test]
fn client_that_leaves_in_the_middle_of_a_frame_is_forgotten() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    let whole = request(API_VERSIONS, 0, 1, b"");
    for cut in 1..whole.len() {
        let mut connection = RawConnection::open(&broker)?;
        connection.send(&whole[..cut]);
        connection.end()?;
        ensure!(connection.reply()? == Reply::Closed, "cut after {cut} bytes");
    }
    check_alive(&broker)
}

#[test]
fn pipelined_requests_are_answered_in_order() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    let mut connection = RawConnection::open(&broker)?;
    let requests: Vec<u8> = (0..50).flat_map(|id| request(API_VERSIONS, 0, id, b"")).collect();
    connection.send(&requests);
    for id in 0..50_i32 {
        let Reply::Frame(frame) = connection.reply()? else {
            anyhow::bail!("closed before answer {id}")
        };
        ensure!(frame.get(..4) == Some(&id.to_be_bytes()[..]), "answer {id} is {frame:?}");
    }
    Ok(())
}

#[test]
fn corrupt_batches_are_refused_and_nothing_is_stored() -> Result<()> {
    let broker = Broker::start(Options::new())?;
    broker.verb(&["topic", "create", "clean"])?;
    for magic in [0, 1, 2, 3, 127] {
        // A batch header with the given magic, a CRC that is wrong and 40 bytes of nothing.
        let mut batch = vec![0; 8];
        batch.extend(49_u32.to_be_bytes());
        batch.extend([0, 0, 0, 0, magic]);
        batch.extend([0xab; 44]);
        let mut body = vec![0xff, 0xff, 0, 1, 0, 0, 0x75, 0x30];
        body.extend(1_u32.to_be_bytes());
        body.extend([0, 5]);
        body.extend(b"clean");
        body.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        body.extend(with_length(&batch));
        let mut connection = RawConnection::open(&broker)?;
        connection.send(&request(0, 3, 5, &body));
        if let Reply::Frame(frame) = connection.reply()? {
            // correlation, one topic, "clean", one partition, index, error code
            let error = frame.get(4 + 4 + 7 + 4 + 4..).and_then(|rest| rest.first_chunk::<2>()).copied();
            ensure!(error.is_some_and(|code| code != [0, 0]), "magic {magic} was taken: {frame:?}");
        }
    }
    check_alive(&broker)?;
    clients::scenario(&broker, "load.py", "read_numbered", &["clean", "0"])?;
    Ok(())
}
