//! A machine's display, for who looks at it.

use reeve_devices::display::{Framebuffer, Mode};
use reeve_display::{Screen, Size};

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
