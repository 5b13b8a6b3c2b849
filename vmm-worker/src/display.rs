//! A machine's display and its input devices, for who looks at the one and uses the others.

use std::sync::Arc;

use reeve_devices::display::{Framebuffer, Mode};
use reeve_devices::virtio::input::{InputEvents, PointerEvent};
use reeve_display::{InputSink, Pointer, Screen, Size};

/// What the guest draws, as VNC's clients and screenshots see it.
#[derive(Debug, Clone)]
pub struct DisplayScreen {
    framebuffer: Framebuffer,
    mode: Option<Mode>,
    scratch: Vec<u8>,
}

impl DisplayScreen {
    /// That of `framebuffer`.
    #[must_use]
    pub fn new(framebuffer: Framebuffer) -> Self {
        Self {
            framebuffer,
            mode: None,
            scratch: Vec::new(),
        }
    }
}

impl Screen for DisplayScreen {
    fn look(&mut self) -> Option<Size> {
        self.mode = self.framebuffer.mode();
        self.mode
            .and_then(|mode| Size::new(mode.width(), mode.height()))
    }

    fn read_line(&mut self, line: u16, pixels: &mut [u32]) {
        if let Some(mode) = &self.mode {
            self.framebuffer
                .read_line(mode, line, pixels, &mut self.scratch);
        }
    }
}

/// A keyboard and a tablet.
#[derive(Debug, Clone)]
pub struct DisplayInput {
    /// Where keys go.
    pub keyboard: Arc<InputEvents>,
    /// Where the pointer goes.
    pub tablet: Arc<InputEvents>,
}

impl InputSink for DisplayInput {
    fn key(&self, code: u16, pressed: bool) {
        self.keyboard.key(code, pressed);
    }

    fn pointer(&self, pointer: Pointer) {
        self.tablet.pointer(PointerEvent {
            x: pointer.x,
            y: pointer.y,
            buttons: pointer.buttons,
            wheel: pointer.wheel,
            horizontal: pointer.horizontal,
        });
    }
}
