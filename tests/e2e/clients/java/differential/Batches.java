package differential;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.BaseRecords;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.ControlRecordType;
import org.apache.kafka.common.record.EndTransactionMarker;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MutableRecordBatch;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.record.SimpleRecord;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.utils.Crc32C;

/**
 * Record batches from a description, and back. A description says what is in a batch (compression, producer, records …) and which
 * bytes are then spoilt, with or without a checksum that fits: {@code {"value": …, "edit": {"16": "00"}, "crc": true}}.
 */
final class Batches {
    private static final JsonNodeFactory JSON = JsonNodeFactory.instance;
    private static final int CRC_AT = 17;
    private static final int CRC_COVERS_FROM = 21;

    private Batches() {}

    /** The bytes of one batch, or of several where the description is a list. */
    static byte[] build(JsonNode description) {
        if (!description.isArray()) {
            return one(description);
        }
        List<byte[]> batches = new ArrayList<>();
        description.forEach(batch -> batches.add(one(batch)));
        ByteBuffer all = ByteBuffer.allocate(batches.stream().mapToInt(batch -> batch.length).sum());
        batches.forEach(all::put);
        return all.array();
    }

    private static byte[] one(JsonNode of) {
        long producer = of.path("producerId").asLong(-1);
        short epoch = (short) of.path("producerEpoch").asInt(-1);
        MemoryRecords records;
        if (of.has("marker")) {
            ControlRecordType type = ControlRecordType.valueOf(of.get("marker").asText());
            records = MemoryRecords.withEndTransactionMarker(producer, epoch, new EndTransactionMarker(type, 0));
        } else {
            Compression compression = Compression.of(CompressionType.forName(of.path("compression").asText("none"))).build();
            TimestampType timestamps = of.path("appendTime").asBoolean() ? TimestampType.LOG_APPEND_TIME : TimestampType.CREATE_TIME;
            SimpleRecord[] content = records(of);
            records = MemoryRecords.withRecords((byte) of.path("magic").asInt(2), of.path("baseOffset").asLong(0), compression, timestamps,
                producer, epoch, of.path("sequence").asInt(-1), of.path("leaderEpoch").asInt(-1), of.path("transactional").asBoolean(),
                content);
        }
        ByteBuffer buffer = records.buffer();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        for (var edit : of.path("edit").properties()) {
            byte[] patch = HexFormat.of().parseHex(edit.getValue().asText());
            System.arraycopy(patch, 0, bytes, Integer.parseInt(edit.getKey()), patch.length);
        }
        if (of.path("crc").asBoolean()) {
            int crc = (int) Crc32C.compute(bytes, CRC_COVERS_FROM, bytes.length - CRC_COVERS_FROM);
            ByteBuffer.wrap(bytes).putInt(CRC_AT, crc);
        }
        return of.has("cut") ? Arrays.copyOf(bytes, bytes.length - of.get("cut").asInt()) : bytes;
    }

    private static SimpleRecord[] records(JsonNode batch) {
        List<SimpleRecord> records = new ArrayList<>();
        for (JsonNode record : batch.path("records")) {
            List<Header> headers = new ArrayList<>();
            record.path("headers").properties().forEach(header ->
                headers.add(new RecordHeader(header.getKey(), bytes(header.getValue()))));
            long time = System.currentTimeMillis() - record.path("ageMs").asLong(0);
            records.add(new SimpleRecord(record.path("timestamp").asLong(time), bytes(record.path("key")), value(record),
                headers.toArray(Header[]::new)));
        }
        return records.toArray(SimpleRecord[]::new);
    }

    private static byte[] value(JsonNode record) {
        return record.has("size") ? "x".repeat(record.get("size").asInt()).getBytes(StandardCharsets.UTF_8) : bytes(record.path("value"));
    }

    private static byte[] bytes(JsonNode text) {
        return text.isTextual() ? text.asText().getBytes(StandardCharsets.UTF_8) : null;
    }

    /** What a consumer would find in a record set, its last batch perhaps cut off. */
    static JsonNode render(BaseRecords set) {
        ArrayNode batches = JSON.arrayNode();
        if (set == null) {
            return JSON.nullNode();
        }
        for (MutableRecordBatch batch : ((MemoryRecords) set).batches()) {
            ObjectNode node = batches.addObject();
            node.put("baseOffset", batch.baseOffset()).put("lastOffset", batch.lastOffset()).put("magic", batch.magic());
            node.put("compression", batch.compressionType().name).put("timestampType", batch.timestampType().name);
            node.put("maxTimestamp", batch.maxTimestamp()).put("producerId", batch.producerId());
            node.put("epochOfProducer", batch.producerEpoch());
            node.put("sequence", batch.baseSequence()).put("control", batch.isControlBatch()).put("transactional", batch.isTransactional());
            node.put("partitionLeaderEpoch", batch.partitionLeaderEpoch()).put("intact", batch.isValid());
            ArrayNode records = node.putArray("records");
            for (Record record : batch) {
                ObjectNode rendered = records.addObject().put("offset", record.offset()).put("timestamp", record.timestamp());
                if (batch.isControlBatch()) {
                    rendered.put("type", ControlRecordType.parse(record.key()).name());
                } else {
                    rendered.set("key", text(record.key()));
                    rendered.set("value", text(record.value()));
                }
                ObjectNode headers = rendered.putObject("headers");
                for (Header header : record.headers()) {
                    headers.set(header.key(), text(header.value() == null ? null : ByteBuffer.wrap(header.value())));
                }
            }
        }
        return batches;
    }

    private static JsonNode text(ByteBuffer bytes) {
        if (bytes == null) {
            return JSON.nullNode();
        }
        String text = StandardCharsets.UTF_8.decode(bytes.duplicate()).toString();
        return JSON.textNode(text.length() > 64 ? text.substring(0, 64) + "… (" + bytes.remaining() + " bytes)" : text);
    }
}
