/* codec_webp.c - WebP through libwebp; EXIF is added and read with libwebpmux's container. */
#include "diffusion/image/codec.h"
#include "diffusion/image/exif.h"

#include <string.h>
#include <webp/decode.h>
#include <webp/encode.h>
#include <webp/mux.h>

enum { EXIF_MAX = 1 << 20 };

static bool read_features(const void *data, size_t len, WebPBitstreamFeatures *f, err *e) {
    if (WebPGetFeatures(data, len, f) != VP8_STATUS_OK) return err_set(e, ERR_FORMAT, "WebP: the header is damaged");
    if (f->has_animation) return err_set(e, ERR_UNSUPPORTED, "WebP: animations are not supported");
    return true;
}

bool webp_probe_size(const void *data, size_t len, int *width, int *height, err *e) {
    WebPBitstreamFeatures f;
    if (!read_features(data, len, &f, e)) return false;
    *width = f.width;
    *height = f.height;
    return true;
}

bool webp_decode_bytes(image *out, const void *data, size_t len, err *e) {
    WebPBitstreamFeatures f;
    if (!read_features(data, len, &f, e)) return false;
    if (!image_alloc(out, f.width, f.height, f.has_alpha ? 4 : 3))
        return err_set(e, ERR_MEMORY, "WebP: no memory for %dx%d pixels", f.width, f.height);
    int stride = out->width * out->channels;
    bool ok = f.has_alpha ? WebPDecodeRGBAInto(data, len, out->px, image_bytes(out), stride) != NULL
                          : WebPDecodeRGBInto(data, len, out->px, image_bytes(out), stride) != NULL;
    return ok || err_set(e, ERR_FORMAT, "WebP: the file is damaged or ends too early");
}

/* The picture alone. */
static bool encode(WebPMemoryWriter *writer, const image *img, int quality, err *e) {
    WebPConfig config;
    WebPPicture picture;
    if (!WebPConfigInit(&config) || !WebPPictureInit(&picture))
        return err_set(e, ERR_INTERNAL, "WebP: library mismatch");
    config.quality = (float)quality;
    config.lossless = quality >= 100;
    config.exact = 1; /* keep colours under transparent pixels */
    picture.use_argb = config.lossless;
    picture.width = img->width;
    picture.height = img->height;
    picture.writer = WebPMemoryWrite;
    picture.custom_ptr = writer;
    int stride = img->width * img->channels;
    bool ok = img->channels == 4 ? WebPPictureImportRGBA(&picture, img->px, stride)
                                 : WebPPictureImportRGB(&picture, img->px, stride);
    ok = ok && WebPEncode(&config, &picture);
    if (!ok)
        err_set(e, ERR_UNSUPPORTED, "WebP: %dx%d pixels can't be encoded (error %d)", img->width, img->height,
                (int)picture.error_code);
    WebPPictureFree(&picture);
    return ok;
}

/* The picture in a container with the EXIF block. */
static bool wrap(buf *out, const WebPMemoryWriter *picture, const char *parameters, err *e) {
    buf exif;
    buf_init(&exif, EXIF_MAX);
    exif_write_comment(&exif, parameters, EXIF_MAX);
    WebPData image_data = {picture->mem, picture->size}, exif_data = {(const uint8_t *)exif.data, exif.len}, file = {0};
    WebPMux *mux = WebPMuxCreate(&image_data, 0);
    bool ok =
        mux && WebPMuxSetChunk(mux, "EXIF", &exif_data, 0) == WEBP_MUX_OK && WebPMuxAssemble(mux, &file) == WEBP_MUX_OK;
    if (!ok)
        err_set(e, ERR_INTERNAL, "WebP: adding the parameters failed");
    else if (!buf_append(out, file.bytes, file.size))
        ok = err_set(e, ERR_TOO_LARGE, "WebP: no room for the file");
    WebPDataClear(&file);
    WebPMuxDelete(mux);
    buf_free(&exif);
    return ok;
}

bool webp_encode_bytes(buf *out, const image *img, int quality, const char *parameters, err *e) {
    image rgb = {0};
    if (img->channels == 1 && !image_convert(&rgb, img, 3, 255)) return err_set(e, ERR_MEMORY, "WebP: no memory");
    WebPMemoryWriter writer;
    WebPMemoryWriterInit(&writer);
    bool ok = encode(&writer, rgb.px ? &rgb : img, quality, e);
    if (ok && parameters)
        ok = wrap(out, &writer, parameters, e);
    else if (ok && !buf_append(out, writer.mem, writer.size))
        ok = err_set(e, ERR_TOO_LARGE, "WebP: no room for the file");
    WebPMemoryWriterClear(&writer);
    image_free(&rgb);
    return ok;
}
