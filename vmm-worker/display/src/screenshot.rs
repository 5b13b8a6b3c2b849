//! The picture as a file: PNG (ISO/IEC 15948), eight bits for each of red, green and blue.

use crate::Screen;
use crate::canvas::Canvas;

/// No picture could be made.
#[derive(Debug, thiserror::Error)]
#[error("the screenshot could not be encoded")]
pub struct ScreenshotError(#[from] png::EncodingError);

/// What `screen` shows now. While it shows nothing, that is [`Size::BLANK`](crate::Size::BLANK) in black, as VNC's clients
/// see it.
///
/// # Errors
/// [`ScreenshotError`].
pub fn png(screen: &mut dyn Screen) -> Result<Vec<u8>, ScreenshotError> {
    let mut canvas = Canvas::default();
    canvas.refresh(screen);
    let size = canvas.size();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size.width().into(), size.height().into());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    let bytes = 3 * usize::from(size.width()) * usize::from(size.height());
    let mut picture = Vec::with_capacity(bytes);
    for pixel in canvas.lines().flatten() {
        let [_, red, green, blue] = pixel.to_be_bytes();
        picture.extend([red, green, blue]);
    }
    writer.write_image_data(&picture)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Picture;

    fn decode(file: &[u8]) -> (u32, u32, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(file))
            .read_info()
            .unwrap();
        let mut picture = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut picture).unwrap();
        assert_eq!(info.color_type, png::ColorType::Rgb);
        (info.width, info.height, picture)
    }

    #[test]
    fn a_screenshot_has_the_pixels_of_the_screen() {
        let picture = Picture::new(100, 50);
        picture.set(99, 0, 0x01_0203);
        let (width, height, pixels) = decode(&png(&mut picture.screen()).unwrap());
        assert_eq!((width, height, pixels.len()), (100, 50, 15_000));
        assert_eq!(pixels[297..303], [1, 2, 3, 0, 0, 0]);
    }

    #[test]
    fn without_a_picture_it_is_black() {
        let picture = Picture::new(1, 1);
        picture.hide();
        let (width, height, pixels) = decode(&png(&mut picture.screen()).unwrap());
        assert_eq!((width, height), (640, 480));
        assert!(pixels.iter().all(|byte| *byte == 0));
    }
}
