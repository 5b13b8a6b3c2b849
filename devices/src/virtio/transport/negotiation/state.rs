//! Where a driver is with its device, as bytes.

use super::super::super::queue::{QueueLayout, QueueProgress};
use super::{DRIVER_OK, F_VERSION_1, FEATURES_OK, Negotiation, SETTABLE};
use crate::state::{StateError, StateReader, StateWriter, check};

impl Negotiation {
    /// The registers and the device's own state. Stopped.
    pub(in super::super) fn save(&self, writer: &mut StateWriter) {
        writer
            .u8(self.status)
            .bool(self.line.wants_reset())
            .u32(self.device_features_select)
            .u32(self.driver_features_select)
            .u64(self.driver_features)
            .u16(self.queue_select)
            .u16(self.line.config_vector())
            .u16(self.queue_count());
        for (index, queue) in (0_u16..).zip(&self.queues) {
            writer
                .u16(queue.layout.size)
                .u64(queue.layout.descriptors)
                .u64(queue.layout.available)
                .u64(queue.layout.used)
                .bool(queue.enabled)
                .u16(self.line.queue_vector(index))
                .u16(queue.progress.next_available)
                .u16(queue.progress.next_used);
        }
        let device = self.device.save();
        writer.u32(u32::try_from(device.len()).unwrap_or(u32::MAX));
        writer.bytes(&device);
    }

    /// Takes a saved state over; [`resume`](Self::resume) then serves the queues. Stopped.
    pub(in super::super) fn restore(&mut self, record: &[u8]) -> Result<(), StateError> {
        let mut reader = StateReader::new(record);
        let status = reader.u8()?;
        check(status & !SETTABLE == 0, "status")?;
        let wants_reset = reader.bool("needs_reset")?;
        let selects = [reader.u32()?, reader.u32()?];
        let driver_features = reader.u64()?;
        if status & FEATURES_OK != 0 {
            let unknown = driver_features & !self.offered();
            check(unknown == 0, "driver_features")?;
            check(driver_features & F_VERSION_1 != 0, "driver_features")?;
        }
        check(
            status & DRIVER_OK == 0 || status & FEATURES_OK != 0,
            "status",
        )?;
        let queue_select = reader.u16()?;
        let config_vector = reader.u16()?;
        check(reader.u16()? == self.queue_count(), "queues")?;
        let mut saved = Vec::with_capacity(self.queues.len());
        for _ in &self.queues {
            let layout = QueueLayout {
                size: reader.u16()?,
                descriptors: reader.u64()?,
                available: reader.u64()?,
                used: reader.u64()?,
            };
            let enabled = reader.bool("queue enabled")?;
            let vector = reader.u16()?;
            let progress = QueueProgress {
                next_available: reader.u16()?,
                next_used: reader.u16()?,
            };
            saved.push((layout, enabled, vector, progress));
        }
        let len = usize::try_from(reader.u32()?).map_err(|_| StateError::Truncated)?;
        let device = reader.slice(len)?;
        reader.finish()?;
        self.device.restore(1, device)?;
        self.discard_remains();
        self.status = status;
        [self.device_features_select, self.driver_features_select] = selects;
        self.driver_features = driver_features;
        self.queue_select = queue_select;
        self.line.reset();
        self.line.restore_wants_reset(wants_reset);
        self.line.set_config_vector(config_vector);
        for ((index, queue), (layout, enabled, vector, progress)) in
            (0_u16..).zip(&mut self.queues).zip(saved)
        {
            queue.layout = layout;
            queue.enabled = enabled;
            queue.progress = progress;
            self.line.set_queue_vector(index, vector);
        }
        Ok(())
    }
}
