"""torchvision's Swin-T as a backbone."""

from torch import Tensor, nn

from workloads.models.backbone import Backbone


class SwinTiny(Backbone):
    """Swin-T without its pooling and classifier, untrained; torchvision's parameter names.

    (B, in_channels, H, W) -> tokens (B, h * w, 768) after the final norm, no class token. h is
    H // 4, then halved three times, rounding up: 7 at 224 px, 1 at 4 to 35 px. Images of fewer
    than 4 pixels per side are refused.

    Args:
        in_channels: Channels of the images.
        drop_path: Rate of stochastic depth at the last block; it grows linearly from 0.

    Raises:
        ValueError: In a forward pass, images of fewer than 4 pixels per side.

    References:
        Liu et al., Swin Transformer, ICCV 2021.
    """

    def __init__(self, *, in_channels: int = 3, drop_path: float = 0.2) -> None:
        # takes seconds: only who builds one pays
        from torchvision.models import SwinTransformer

        super().__init__(out_channels=768, tokens=True)
        net = SwinTransformer(  # torchvision's swin_t fixes the rate of stochastic depth
            patch_size=[4, 4],
            embed_dim=96,
            depths=[2, 2, 6, 2],
            num_heads=[3, 6, 12, 24],
            window_size=[7, 7],
            stochastic_depth_prob=drop_path,
            num_classes=1,
        )
        self.features, self.norm = net.features, net.norm
        if in_channels != 3:
            self.features[0][0] = nn.Conv2d(in_channels, 96, 4, stride=4)

    def no_weight_decay(self) -> set[str]:
        """Name the parameters that are positions and not weights, as Swin's own code does."""
        return {name for name, _ in self.named_parameters() if name.endswith("bias_table")}

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if height < 4 or width < 4:
            raise ValueError(
                f"images of {height}x{width} pixels: swin_tiny needs at least 4 per side, which "
                f"make one token; 36 make 2x2, 224 make 7x7"
            )
        return self.norm(self.features(images)).flatten(1, 2)
