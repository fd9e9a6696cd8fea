import torch
from lighthouse_attention import LighthouseAttention, switch_to_dense

class Decoder(torch.nn.Module):
    def __init__(self, dim=64, heads=4):
        super().__init__()
        self.embed, self.qkv, self.out = torch.nn.Embedding(256, dim), torch.nn.Linear(dim, 3 * dim), torch.nn.Linear(dim, 256)
        self.heads, self.attention = heads, LighthouseAttention(topk=16, num_levels=3, pooling_factor=2)

    def forward(self, tokens):  # [B, N]
        x = self.embed(tokens)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # [B, N, H, d] each
        return self.out(x + self.attention(q, k, v).flatten(2))  # [B, N, 256]

text = torch.tensor(list(open(torch.__file__, "rb").read()))[None, :1025]  # bytes of some file
model = Decoder()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for step in range(60):
    if step == 40:
        switch_to_dense(model)  # stage two: plain causal attention, the same weights
    loss = torch.nn.functional.cross_entropy(model(text[:, :-1])[0], text[0, 1:])
    optimizer.zero_grad(), loss.backward(), optimizer.step()
    print(f"step {step + 1}: loss {loss.item():.3f}")
