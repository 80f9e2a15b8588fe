//! Headers of a consumed record, straight into a batch.

use std::ffi::CStr;

use rdkafka::bindings;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;

use crate::model::Batch;

/// Gives the batch's last row the record's headers. rdkafka's own iterator panics on a name that is not UTF-8, which any
/// producer can write.
#[allow(unsafe_code, reason = "the safe wrapper panics on names that are not UTF-8")]
pub(super) fn push(batch: &mut Batch, record: &BorrowedMessage<'_>) {
    let mut headers = std::ptr::null_mut();
    // SAFETY: the record is alive for the whole call and owns the list that is borrowed from it.
    let found = unsafe { bindings::rd_kafka_message_headers(record.ptr(), &raw mut headers) };
    if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
        return;
    }
    // SAFETY: `headers` was just returned for a record that is still borrowed.
    let count = unsafe { bindings::rd_kafka_header_cnt(headers) };
    batch.push_headers((0..count).map_while(|index| {
        let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: the index is below the count, and the three places outlive the call.
        let read =
            unsafe { bindings::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size) };
        if read != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
            return None;
        }
        // SAFETY: the library ends names with a zero byte and keeps both parts as long as the record, which outlives
        // the slices: `push_headers` copies them.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        let value = (!value.is_null())
            // SAFETY: as above; `size` is the value's length.
            .then(|| unsafe { std::slice::from_raw_parts(value.cast::<u8>(), size) });
        Some((name, value))
    }));
}
