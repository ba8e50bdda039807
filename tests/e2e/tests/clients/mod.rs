//! Stock clients against a fresh broker: librdkafka (confluent-kafka), kafka-python, and the old librdkafka in Debian's kcat.

mod confluent;
mod kafka_python;
mod kcat;
mod matrix;
