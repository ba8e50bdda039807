package differential;

import java.io.DataInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.SocketException;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.ApiMessage;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.requests.RequestHeader;
import org.apache.kafka.common.requests.ResponseHeader;

/** One TCP connection to a broker that speaks frames: what a client library hides (closing, silence, odd versions) can be seen here. */
final class Connection implements AutoCloseable {
    /** The broker hung up, or said nothing for as long as a client would wait. */
    static final class NoAnswer extends Exception {
        private static final long serialVersionUID = 1;

        NoAnswer(String outcome) {
            super(outcome);
        }
    }

    static final String CLIENT_ID = "differential";
    private static final int SILENCE_MS = 15_000;

    private final Socket socket = new Socket();
    private final DataInputStream in;
    private int correlation;

    Connection(String address) throws IOException {
        int colon = address.lastIndexOf(':');
        socket.setTcpNoDelay(true);
        socket.connect(new InetSocketAddress(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1))), SILENCE_MS);
        socket.setSoTimeout(SILENCE_MS);
        in = new DataInputStream(socket.getInputStream());
    }

    void send(ApiKeys api, short version, ApiMessage body) throws IOException {
        RequestHeader header = new RequestHeader(api, version, CLIENT_ID, ++correlation);
        ByteBuffer head = MessageUtil.toByteBufferAccessor(header.data(), header.headerVersion()).buffer();
        ByteBuffer rest = MessageUtil.toByteBufferAccessor(body, version).buffer();
        ByteBuffer frame = ByteBuffer.allocate(head.remaining() + rest.remaining());
        sendRaw(frame.put(head).put(rest).array());
    }

    /** Sends a frame of any content, which a client library would refuse to write. */
    void sendRaw(byte[] frame) throws IOException {
        ByteBuffer bytes = ByteBuffer.allocate(4 + frame.length).putInt(frame.length).put(frame);
        try {
            socket.getOutputStream().write(bytes.array());
        } catch (SocketException hungUp) {
            // The answer to an earlier frame may still be there to read, and reading says that the connection is closed.
        }
    }

    ApiMessage receive(ApiKeys api, short version) throws IOException, NoAnswer {
        ByteBuffer frame = ByteBuffer.wrap(receiveRaw());
        ResponseHeader.parse(frame, api.responseHeaderVersion(version));
        ApiMessage response = api.messageType.newResponse();
        response.read(new ByteBufferAccessor(frame), version);
        if (frame.hasRemaining()) {
            throw new NoAnswer("answer with " + frame.remaining() + " bytes too many");
        }
        return response;
    }

    byte[] receiveRaw() throws IOException, NoAnswer {
        try {
            byte[] frame = new byte[in.readInt()];
            in.readFully(frame);
            return frame;
        } catch (SocketTimeoutException silence) {
            throw new NoAnswer("silence");
        } catch (EOFException | SocketException closed) {
            throw new NoAnswer("closed");
        }
    }

    @Override
    public void close() throws IOException {
        socket.close();
    }
}
